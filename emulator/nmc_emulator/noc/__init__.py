"""The network on chip in time: discrete events (``queue``) and flit by flit (``cycle``)."""

from .spec import NocSpec
from .times import TickLoads, TickTimes, check_fidelity, sends_trees, simulate

__all__ = ["NocSpec", "TickLoads", "TickTimes", "check_fidelity", "sends_trees", "simulate"]
