"""Spike voxel coding: which voxels, which features, what is refused; clouds in files."""

from __future__ import annotations

import numpy as np
import pytest

from nmc.clouds import coder_of, holds_points, read_clouds
from nmc_compiler.errors import FrontendError, UsageError
from nmc_emulator.voxels import Voxels

CODER = Voxels((0.5, 0.5, 0.5), (8, 8, 8), (-2.0, -2.0, -2.0, 2.0, 2.0, 2.0), (3, 0))
KITTI = Voxels((0.2, 0.2, 0.2), (353, 401, 21), (0, -40, -3, 70.4, 40, 1), (0, 1, 2, 3))


def test_voxels_are_counted_from_the_range_and_ordered():
    points = np.array([[1.9, -2.0, 0.0, 7], [-2.0, 0.1, 1.2, 1], [-1.6, 0.4, 1.0, 2], [2.0, 0, 0, 9], [0, 0, -2.1, 9]])
    voxels, features = CODER.code(points)
    assert voxels.tolist() == [[0, 4, 6], [7, 0, 4]] and voxels.dtype == np.int32
    assert features.tolist() == [[1, -2.0], [7, 1.9]]  # of the first point
    mean = Voxels(CODER.size, CODER.extent, CODER.range, (3, 0), "mean")
    assert mean.code(points)[1].tolist() == [[1.5, -1.8], [7, 1.9]]


def test_without_a_range_the_least_voxel_is_the_origin():
    coder = Voxels((0.1, 0.2, 1.0), (40, 40, 40))
    points = np.random.default_rng(0).uniform(5, 8, (200, 3))
    voxels, features = coder.code(points)
    want = np.floor(points / [0.1, 0.2, 1.0])
    want = np.unique(want - want.min(axis=0), axis=0)
    assert voxels.tolist() == want.tolist() and len(features) == len(want)


def test_a_sample_says_which_slots_are_empty():
    sample = CODER.sample(np.array([[0.0, 0, 0, 5]]), 3)
    assert sample.shape == (5, 3, 1)
    assert sample[:, :, 0].T.tolist() == [[4, 4, 4, 5, 0], [-1, -1, -1, 0, 0], [-1, -1, -1, 0, 0]]


def test_the_kitti_cloud_has_5292_active_voxels(shared):
    points = read_clouds(shared / "data" / "points" / "000008.bin")[0][0]
    voxels, features = KITTI.code(points)
    assert len(points) == 17238 and voxels.shape == (5292, 3) and features.shape == (5292, 4)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 4)), "c: 0 points; 1 to 67108864 can be coded"),
        (np.zeros((3, 2)), "c: float64 [3, 2]; points are real rows x, y, z, ..."),
        (np.zeros((3, 3)), "c: points have 3 columns, and column 3 is a feature"),
        (np.full((3, 4), "a"), "c: <U1 [3, 4]; points are real rows x, y, z, ..."),
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, np.inf]]),
         "c: 1 points are NaN or infinite, the first in row 1, column 1; clean the cloud"),
        (np.full((2, 4), 9.0), "c: none of its 2 points lies in the range [-2.0, -2.0, -2.0, 2.0, 2.0, 2.0]"),
        (np.full((1, 4), 1e300), "c: coordinates up to 1e+300 are too many voxels of [0.5, 0.5, 0.5] to be told apart"),
    ],
)  # fmt: skip
def test_clouds_that_are_refused(points, message):
    with pytest.raises(UsageError) as error:
        CODER.code(points, "c")
    assert str(error.value) == message


def test_a_cloud_beyond_the_extent_or_the_slots_is_refused():
    wide, rng = Voxels((0.5,) * 3, (8, 8, 8)), np.random.default_rng(1)
    with pytest.raises(UsageError, match=r"spans \[20, 1, 1\] voxels of size \[0.5, 0.5, 0.5\], the network takes"):
        wide.code(np.array([[0.0, 0, 0], [9.9, 0, 0]]))
    with pytest.raises(UsageError, match=r"c: 1\d\d active voxels, but the network has 50 slots for them; crop the"):
        CODER.sample(rng.uniform(-2, 2, (200, 4)), 50, "c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0.0, 1, 1)}, "voxel size [0.0, 1, 1]: give one or three finite lengths above 0"),
        ({"extent": (1, 1, 2**20 + 1)}, "voxel extent [1, 1, 1048577]: give three numbers in 1..1048576"),
        ({"range": (0, 0, 0, 1, 1, 0)}, "voxel range [0, 0, 0, 1, 1, 0]: give least and greatest x, y, z, six finite"),
        ({"range": (0, 0, 0, 1)}, "voxel range [0, 0, 0, 1]: give least and greatest x, y, z, six finite numbers"),
        ({"features": ()}, "voxel features []: name columns of the points, from 0"),
        ({"reduce": "most"}, "voxel reduce 'most': choose first or mean"),
    ],
)
def test_codings_that_make_no_sense(options, message):
    with pytest.raises(UsageError) as error:
        Voxels(**({"size": (1.0, 1.0, 1.0), "extent": (4, 4, 4)} | options))
    assert str(error.value).startswith(message)


# --- files --------------------------------------------------------------------------------------------------


def test_clouds_of_a_file(tmp_path):
    points, path = np.arange(24.0).reshape(6, 4), tmp_path / "clouds.npz"
    np.savez(path, points=points, offsets=[0, 2, 2, 6], labels=[3, 1, 2])
    assert holds_points(path)
    clouds, labels = read_clouds(path, 2)
    assert [c.tolist() for c in clouds] == [points[:2].tolist(), []] and labels.tolist() == [3, 1]
    np.savez(path, points=points)
    clouds, labels = read_clouds(path)
    assert len(clouds) == 1 and labels is None
    points.astype("<f4").tofile(tmp_path / "one.bin")
    assert holds_points(tmp_path / "one.bin") and read_clouds(tmp_path / "one.bin")[0][0].tolist() == points.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": np.zeros((4, 2))}, "points have shape [4, 2]; rows x, y, z, ... are needed"),
        ({"points": np.zeros((4, 3)), "offsets": [0, 3]},
         "offsets must rise from 0 to the 4 points, one more than there are clouds; got int64 [2]"),
        ({"points": np.zeros((4, 3)), "offsets": [0, 3, 2, 4]},
         "offsets must rise from 0 to the 4 points, one more than there are clouds; got int64 [4]"),
        ({"points": np.zeros((4, 3)), "labels": [0.5]},
         "labels are float64 [1]; one whole number for each of the 1 clouds is needed"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(FrontendError) as error:
        read_clouds(tmp_path / "c.npz")
    assert str(error.value) == f"{tmp_path}/c.npz: {message}"


def test_a_binary_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "c.bin").write_bytes(bytes(17))
    with pytest.raises(FrontendError, match=r"c.bin: 17 bytes are no list of up to 67108864 points of 16 bytes"):
        read_clouds(tmp_path / "c.bin")
    with pytest.raises(FrontendError, match=r"no.bin: cannot be read: No such file"):
        read_clouds(tmp_path / "no.bin")


def test_a_config_must_say_how_points_become_voxels():
    coder = coder_of(
        {"voxel_size": 0.5, "extent": (4, 4, 4), "point_range": (0, 0, 0, 2, 2, 2), "voxel_features": (3,)}
    )
    assert coder == Voxels((0.5, 0.5, 0.5), (4, 4, 4), (0, 0, 0, 2, 2, 2), (3,))
    with pytest.raises(UsageError, match="is not known: the config of the model lacks 'voxel_size'"):
        coder_of({"extent": (4, 4, 4)})
    with pytest.raises(UsageError, match="'voxel_size', 'extent' and 'voxel_features' must be numbers or lists"):
        coder_of({"voxel_size": "small", "extent": (4, 4, 4)})
