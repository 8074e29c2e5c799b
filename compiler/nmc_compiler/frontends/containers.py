"""Where in a checkpoint file the state_dict and the config are.

Containers as published checkpoints have them: a bare state_dict; timm's `state_dict` and `state_dict_ema`
with `args` and `optimizer` beside; `model` of MAE and DeiT; `state_dict` and `config` of ours. What is chosen
and what is left aside is said in notes.
"""

from dataclasses import dataclass

from nmc_compiler.errors import FrontendError
from nmc_compiler.frontends.torch_values import describe, short_text

EMA_KEYS = ("state_dict_ema", "model_ema")
"""Moving averages of the weights, in timm and DeiT checkpoints; timm prefers them too (`load_state_dict`)."""

STATE_KEYS = ("state_dict", "model_state", "model", "net")
"""Where training scripts put the state_dict (timm and Lightning; OpenPCDet; MAE and DeiT; PyTracking)."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every key."""

MAX_CONFIG_VALUES = 100_000
MAX_CONFIG_DEPTH = 32

_PLAIN = (str, int, float, bool, type(None))


def choose_state(root: object, notes: list[str], wanted: str | None = None) -> tuple[dict, dict | None]:
    """(state_dict, config) of the object in a file; adds to `notes` what was chosen and left aside.

    wanted: the key that is chosen, where the user named one.
    """
    if not isinstance(root, dict):
        raise FrontendError(
            f"it holds {describe(root)}, not a state_dict: save one with torch.save(model.state_dict(), 'weights.pt')"
        )
    averages = [key for key in EMA_KEYS if isinstance(root.get(key), dict)]
    plain = [key for key in STATE_KEYS if isinstance(root.get(key), dict)]
    if wanted is not None and wanted not in (*averages, *plain):
        known = ", ".join(map(repr, (*averages, *plain))) or "none: it is a bare state_dict, or holds no tensors"
        raise FrontendError(f"it holds no state_dict under {short_text(wanted)} (--state); those it holds are {known}")
    holders = averages or plain if wanted is None else [wanted]
    if not holders:
        return root, None
    if len(holders) > 1:
        raise FrontendError(f"it holds a state_dict under each of {holders}: name the one that is meant with --state")
    _note_choice(holders[0], [key for key in (*averages, *plain) if key != holders[0]], notes)
    config = _config(root.get("config"), notes)
    _note_rest(root, {*averages, *plain, "config"}, notes)
    return root[holders[0]], config


def _note_choice(chosen: str, passed_over: list[str], notes: list[str]) -> None:
    text = f"weights taken from {chosen!r}"
    if passed_over:
        what = ", the moving average," if chosen in EMA_KEYS else ""
        text += f"{what} in preference to {', '.join(map(repr, passed_over))}; --state KEY chooses another"
    notes.append(text)


def _note_rest(root: dict, used: set[str], notes: list[str]) -> None:
    rest = [f"{short_text(key)} ({describe(value)})" for key, value in root.items() if key not in used]
    if rest:
        more = f" and {len(rest) - 12} more" if len(rest) > 12 else ""
        notes.append(f"left aside: {', '.join(rest[:12])}{more}")


def _config(value: object, notes: list[str]) -> dict | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        notes.append(f"'config' left aside: it is {describe(value)}, not a dict of plain data")
        return None
    try:
        return _plain_copy(value, _Budget(), 0)  # type: ignore[return-value]
    except _NotPlain as error:
        notes.append(f"'config' left aside: it holds {error}, which is not plain data")
        return None


class _NotPlain(Exception):
    """Something in a config is not plain data."""


@dataclass
class _Budget:
    """Shared parts make a small pickle a large tree: the copy is bounded."""

    values: int = 0

    def spend(self, depth: int) -> None:
        self.values += 1
        if self.values > MAX_CONFIG_VALUES:
            raise _NotPlain(f"more than {MAX_CONFIG_VALUES} values")
        if depth > MAX_CONFIG_DEPTH:
            raise _NotPlain(f"data nested more than {MAX_CONFIG_DEPTH} deep")


def _plain_copy(value: object, budget: _Budget, depth: int) -> object:
    """Copy of plain data; tuples become lists, as in JSON and YAML."""
    budget.spend(depth)
    if isinstance(value, dict):
        return {_plain_key(key): _plain_copy(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_copy(item, budget, depth + 1) for item in value]
    if type(value) not in _PLAIN:
        raise _NotPlain(describe(value))
    return value


def _plain_key(key: object) -> str:
    if type(key) is not str:
        raise _NotPlain(f"a key that is {describe(key)}")
    return key


def strip_wrappers(state: dict, notes: list[str]) -> dict:
    """Removes a prefix that every key has."""
    for prefix in WRAPPERS:
        if state and all(isinstance(key, str) and key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            notes.append(f"prefix {prefix!r} removed from all {len(state)} keys")
    return state
