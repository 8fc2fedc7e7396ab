"""Synthetic heads: the parameter vector, compiled assets, the camera convention and the truth of views and depth."""

from pathlib import Path

import numpy as np
import pytest

from pmv.errors import AssetsError
from pmv.training.heads import Head, HeadAssets, HeadParameters, HeadRenderer, build_head, sample_parameters
from pmv.training.heads.parameters import ENTRIES, HAIRSTYLES
from pmv.training.heads.sheet import contact_sheet, orbit_matrices

MAKEHUMAN = Path(__file__).parents[2] / ".." / "shared" / "makehuman"
RESOLUTION = 128
BALD = sample_parameters(3).with_hairstyle("none").replace(face_hair__beard=0.0)


@pytest.fixture(scope="module")
def assets() -> HeadAssets:
    if not MAKEHUMAN.is_dir():
        pytest.skip("no MakeHuman data in ../shared/makehuman")
    return HeadAssets.load(MAKEHUMAN)


@pytest.fixture(scope="module")
def renderer() -> HeadRenderer:
    try:
        return HeadRenderer(RESOLUTION, supersample=1, texture_size=256)
    except AssetsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def bald(assets: HeadAssets) -> Head:
    return build_head(assets, BALD)


def unproject(depth: np.ndarray, cam2world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """World points [H,W,3] of z-depth."""
    v, u = (np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]] + 0.5) / depth.shape[0]
    rays = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(intrinsics).T
    return (rays * depth[..., None]) @ cam2world[:3, :3].T + cam2world[:3, 3]


def project(points: np.ndarray, cam2world: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel columns and rows in [0,1] [...,2] and z-depth [...] of world points."""
    seen = (points - cam2world[:3, 3]) @ cam2world[:3, :3]
    return (seen / seen[..., 2:]) @ intrinsics.T[:, :2], seen[..., 2]


class TestParameters:
    def test_a_vector_of_any_size_of_numbers_round_trips(self):
        z = np.random.default_rng(0).normal(0, 5, len(ENTRIES)).astype(np.float32)
        np.testing.assert_array_equal(HeadParameters.from_vector(z).vector(), z)

    def test_the_same_seed_gives_the_same_head(self):
        np.testing.assert_array_equal(sample_parameters(5).vector(), sample_parameters(5).vector())
        assert not np.array_equal(sample_parameters(5).vector(), sample_parameters(6).vector())

    def test_sampled_entries_have_zero_mean_and_unit_variance(self):
        z = np.stack([sample_parameters(seed).vector() for seed in range(1000)])
        names = np.array(HeadParameters.names)
        # the one-hot of the hairstyles has one scale for all, so common styles vary more and rare ones less
        assert np.abs(z.mean(0)).max() < 0.35, names[np.abs(z.mean(0)).argmax()]
        assert 0.6 < z.std(0).min() and z.std(0).max() < 1.45, names[[z.std(0).argmin(), z.std(0).argmax()]]

    def test_names_are_unique_and_groups_tile_the_vector(self):
        assert len(set(HeadParameters.names)) == len(ENTRIES)
        covered = [i for part in HeadParameters.groups.values() for i in range(part.start, part.stop)]
        assert sorted(covered) == list(range(len(ENTRIES)))

    @pytest.mark.parametrize("style", HAIRSTYLES)
    def test_a_hairstyle_is_what_was_asked_for(self, style):
        assert sample_parameters(1).with_hairstyle(style).hairstyle == style

    def test_values_are_clipped_to_their_range(self):
        wild = HeadParameters.from_vector(np.full(len(ENTRIES), 100, np.float32))
        assert all(wild[entry.name] == pytest.approx(entry.high) for entry in ENTRIES)

    def test_a_vector_of_the_wrong_length_is_refused(self):
        with pytest.raises(ValueError, match="parameters"):
            HeadParameters.from_vector(np.zeros(3))


class TestAssets:
    def test_missing_data_is_named_with_the_way_to_get_it(self, tmp_path):
        with pytest.raises(AssetsError, match=r"base\.obj.*MakeHuman") as caught:
            HeadAssets.load(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    def test_an_incomplete_checkout_names_the_missing_file(self, tmp_path):
        if not MAKEHUMAN.is_dir():
            pytest.skip("no MakeHuman data in ../shared/makehuman")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "3dobjs").symlink_to((MAKEHUMAN / "data" / "3dobjs").resolve())
        with pytest.raises(AssetsError, match=r"high-poly\.obj"):
            HeadAssets.load(tmp_path)

    def test_a_damaged_compiled_file_is_refused(self, tmp_path):
        damaged = tmp_path / "heads.npz"
        np.savez(damaged, base=np.zeros((1, 3)))
        with pytest.raises(AssetsError, match=r"heads\.npz"):
            HeadAssets.load(damaged)

    def test_the_compiled_file_is_small_and_gives_the_same_picture(self, assets, renderer, tmp_path):
        assets.save(tmp_path / "heads.npz")
        assert (tmp_path / "heads.npz").stat().st_size < 14 * 2**20
        parameters = sample_parameters(2)
        views = []
        for source in (assets, HeadAssets.load(tmp_path / "heads.npz")):
            renderer.load(build_head(source, parameters))
            views.append(renderer.render(*orbit_matrices(30)))
        np.testing.assert_array_equal(views[0].rgb, views[1].rgb)
        np.testing.assert_array_equal(views[0].depth, views[1].depth)


class TestGeometry:
    def test_the_same_parameters_give_the_same_bytes(self, assets):
        first, second = (build_head(assets, sample_parameters(8)) for _ in range(2))
        assert [p.positions.tobytes() for p in first.parts] == [p.positions.tobytes() for p in second.parts]

    @pytest.mark.parametrize("seed", range(4))
    def test_the_eyes_fall_where_ffhq_alignment_puts_them(self, assets, seed):
        head = build_head(assets, sample_parameters(seed))
        eyes = next(part for part in head.parts if part.name == "eyes").positions
        centres = np.stack([eyes[eyes[:, 0] < 0].mean(0), eyes[eyes[:, 0] > 0].mean(0)])
        pixels, _ = project(centres, *orbit_matrices(0))
        np.testing.assert_allclose(pixels * 256, [[97, 118], [159, 118]], atol=9)

    @pytest.mark.parametrize("scale", [2.0, 4.0])
    def test_any_vector_is_a_head(self, assets, scale):
        z = np.random.default_rng(1).normal(0, scale, len(ENTRIES))
        skin = build_head(assets, HeadParameters.from_vector(z)).parts[0].positions
        face = skin[(np.abs(skin[:, 1]) < 0.2) & (skin[:, 2] > 0)]
        assert np.isfinite(skin).all()
        assert 0.15 < np.ptp(face[:, 0]) < 0.6 and 0.15 < face[:, 2].max() < 0.4

    def test_hair_stays_in_the_box_at_the_top_the_sides_and_the_back(self, assets):
        for style in HAIRSTYLES[1:]:
            hair = build_head(assets, BALD.with_hairstyle(style)).parts[-1].positions
            assert hair[:, 1].max() < 0.375 and np.abs(hair[:, 0]).max() < 0.375 and hair[:, 2].min() > -0.375

    def test_a_mirrored_hairstyle_is_the_mirror_image(self, assets):
        symmetric = HeadParameters.from_vector(np.zeros(len(ENTRIES))).with_hairstyle("bob01")
        left, right = (build_head(assets, symmetric.replace(hair__mirrored=side)).parts[-1] for side in (-1.0, 1.0))
        np.testing.assert_allclose(left.positions * [-1, 1, 1], right.positions, atol=0.004)


class TestViews:
    def test_the_same_seed_draws_the_same_bytes(self, assets, renderer):
        pictures = []
        for _ in range(2):
            renderer.load(build_head(assets, sample_parameters(11)))
            pictures.append(renderer.render(*orbit_matrices(20)).rgb.tobytes())
        assert pictures[0] == pictures[1]

    def test_a_camera_at_positive_yaw_stands_at_positive_x(self, renderer, bald):
        """From +x the nose, which looks along +z, points to the left of the picture."""
        renderer.load(bald)
        camera = orbit_matrices(60)
        assert camera[0][0, 3] > 2
        view = renderer.render(*camera)
        solid = view.alpha > 0.99
        points = unproject(view.depth, *camera)[solid]
        nose = points[:, 2].argmax()
        assert np.argwhere(solid)[nose, 1] < 0.3 * RESOLUTION
        assert abs(points[nose, 0]) < 0.03 and 0.2 < points[nose, 2] < 0.32
        assert points[:, 0].mean() > 0.03

    def test_depth_is_there_exactly_where_alpha_is(self, assets, renderer):
        renderer.load(build_head(assets, sample_parameters(4)))
        for yaw in (0, 90, 180):
            view = renderer.render(*orbit_matrices(yaw))
            assert ((view.depth > 0) == (view.alpha > 0)).mean() > 0.999
            assert (view.rgb[view.alpha == 0] == 0).all()
            shown = view.depth[view.alpha > 0]
            assert shown.min() > 2.7 - 0.375 * 2**0.5 - 0.01 and shown.max() < 2.7 + 0.375 * 2**0.5 + 0.01

    @pytest.mark.parametrize("yaws", [(0, 20), (90, 110), (170, 200)])
    def test_depth_of_one_view_lands_on_the_surface_of_another(self, renderer, bald, yaws):
        renderer.load(bald)
        cameras = [orbit_matrices(yaw) for yaw in yaws]
        first, second = (renderer.render(*camera) for camera in cameras)
        points = unproject(first.depth, *cameras[0])[first.alpha > 0.99]
        place, depth = project(points, *cameras[1])
        pixel = np.floor(place * RESOLUTION).astype(int)
        inside = ((pixel >= 0) & (pixel < RESOLUTION)).all(1)
        column, row = pixel[inside].T
        error = depth[inside] - second.depth[row, column]
        visible = (error < 0.02) & (second.alpha[row, column] > 0.99)  # the others are hidden in the second view
        assert visible.mean() > 0.6
        assert np.median(np.abs(error[visible])) < 0.002
        # a visible point in front of the other view's surface would be carved away: only silhouettes may disagree
        assert (error[inside[inside]] < -0.02).mean() < 0.02

    def test_nothing_is_drawn_outside_the_box(self, renderer, bald):
        renderer.load(bald)
        wide = orbit_matrices(0)[1] * [[0.6, 1, 1], [1, 0.6, 1], [1, 1, 1]]
        cam2world = orbit_matrices(40)[0]
        view = renderer.render(cam2world, wide)
        points = unproject(view.depth, cam2world, wide)[view.alpha > 0.99]
        assert np.abs(points).max() < 0.38
        assert points[:, 1].min() < -0.36  # the neck and shoulders reach the bottom of the box

    def test_without_specular_a_point_looks_the_same_from_everywhere(self, renderer, bald):
        renderer.load(bald)
        cameras = [orbit_matrices(yaw) for yaw in (-12, 12)]
        first, second = (renderer.render(*camera) for camera in cameras)
        points = unproject(first.depth, *cameras[0])
        place, depth = project(points, *cameras[1])
        column, row = np.moveaxis(np.clip(np.floor(place * RESOLUTION).astype(int), 0, RESOLUTION - 1), -1, 0)
        same = (
            (first.alpha > 0.99)
            & (np.abs(depth - second.depth[row, column]) < 0.004)
            & (second.alpha[row, column] > 0.99)
        )
        difference = np.abs(first.rgb[same].astype(int) - second.rgb[row, column][same])
        assert same.sum() > 2000
        assert np.median(difference) <= 3

    def test_a_decal_sits_on_the_cheek_in_every_view(self, assets, renderer, bald):
        red = np.ones((8, 8, 4), np.float32) * [1, 0, 0, 1]
        painted = bald.with_decal(red, centre=(0.64, 0.58), width=0.08)
        for yaw in (0, 35):
            pictures = []
            for head in (bald, painted):
                renderer.load(head)
                pictures.append(renderer.render(*orbit_matrices(yaw)))
            changed = np.abs(pictures[0].rgb.astype(int) - pictures[1].rgb).max(2) > 40
            points = unproject(pictures[0].depth, *orbit_matrices(yaw))[changed]
            place, _ = project(points, *orbit_matrices(0))
            assert changed.sum() > 20
            assert (np.abs(place - [0.64, 0.58]) < 0.055).all()

    def test_a_decal_without_alpha_is_refused(self, bald):
        with pytest.raises(ValueError, match="RGBA"):
            bald.with_decal(np.zeros((4, 4, 3)), (0.5, 0.5), 0.1)

    def test_a_contact_sheet_has_a_row_a_head_and_a_column_a_yaw(self, assets, renderer):
        sheet = contact_sheet(assets, [0, 1], [0, 180], resolution=48)
        assert sheet.shape == (96, 96, 3) and sheet.dtype == np.uint8
        assert sheet[:48, :48].std() > 10
