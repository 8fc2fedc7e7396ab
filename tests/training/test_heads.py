"""Synthetic heads: the parameter vector, compiled assets, the camera convention and the truth of views and depth."""

from pathlib import Path

import numpy as np
import pytest

from pmv.errors import AssetsError
from pmv.training.heads import (
    Head,
    HeadAssets,
    HeadParameters,
    HeadRenderer,
    HeadView,
    build_head,
    load_assets,
    sample_parameters,
)
from pmv.training.heads import scans as scan_files
from pmv.training.heads.parameters import ENTRIES, HAIRSTYLES, SCAN_MODE_NAMES, SCAN_MODES, scan_directions
from pmv.training.heads.scans import MULTI_PIE, ScanModel, read_scans
from pmv.training.heads.sheet import contact_sheet, orbit_matrices
from pmv.training.heads.statistics import MEASURES, measure, scanned_heads, synthetic_heads

SCANS = Path(__file__).parents[2] / ".." / "shared" / "ict_facekit"
MAKEHUMAN = Path(__file__).parents[2] / ".." / "shared" / "makehuman"
RESOLUTION = 128
BALD = (
    sample_parameters(3)
    .with_hairstyle("none")
    .replace(
        face_hair__beard=0.0,
        wear__glasses=0.0,
        wear__hat=0.0,
        wear__headband=0.0,
        hair__length=0.0,
        locks__receding=0.0,
    )
)


@pytest.fixture(scope="module")
def assets() -> HeadAssets:
    if not MAKEHUMAN.is_dir():
        pytest.skip("no MakeHuman data in ../shared/makehuman")
    return load_assets(MAKEHUMAN)


@pytest.fixture(scope="module")
def scanned(assets: HeadAssets) -> HeadAssets:
    if not SCANS.is_dir():
        pytest.skip("no ICT-FaceKit data in ../shared/ict_facekit")
    return load_assets(MAKEHUMAN, SCANS)


@pytest.fixture(scope="module")
def scan_model() -> ScanModel:
    if not SCANS.is_dir():
        pytest.skip("no ICT-FaceKit data in ../shared/ict_facekit")
    return read_scans(SCANS)


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

    def test_scanned_faces_are_standard_normal_and_go_with_sex(self):
        heads = [sample_parameters(seed) for seed in range(1500)]
        modes = np.stack([[head[name] for name in SCAN_MODE_NAMES] for head in heads])
        np.testing.assert_allclose(np.cov(modes.T), np.eye(SCAN_MODES), atol=0.16)
        male = np.array([head["macro/male"] for head in heads]) > 0.5
        apart = (modes[male].mean(0) - modes[~male].mean(0)) @ scan_directions()[0]
        assert 0.8 < apart < 1.4  # 2 · 0.55 standard deviations along the direction of sex

    def test_what_version_3_appended_comes_after_what_was_there(self):
        names = HeadParameters.names
        assert names.index("light/side") == 168 and names[169].startswith("lighting/")
        assert len(names) == 249

    def test_values_are_clipped_to_their_range(self):
        wild = HeadParameters.from_vector(np.full(len(ENTRIES), 100, np.float32))
        assert all(wild[entry.name] == pytest.approx(entry.high) for entry in ENTRIES)

    def test_a_vector_of_the_wrong_length_is_refused(self):
        with pytest.raises(ValueError, match="parameters"):
            HeadParameters.from_vector(np.zeros(3))


class TestAssets:
    def test_missing_data_is_named_with_the_way_to_get_it(self, tmp_path):
        with pytest.raises(AssetsError, match=r"base\.obj.*MakeHuman") as caught:
            load_assets(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    def test_an_incomplete_checkout_names_the_missing_file(self, tmp_path):
        if not MAKEHUMAN.is_dir():
            pytest.skip("no MakeHuman data in ../shared/makehuman")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "3dobjs").symlink_to((MAKEHUMAN / "data" / "3dobjs").resolve())
        with pytest.raises(AssetsError, match=r"high-poly\.obj"):
            load_assets(tmp_path)

    def test_a_damaged_compiled_file_is_refused(self, tmp_path):
        damaged = tmp_path / "heads.npz"
        np.savez(damaged, base=np.zeros((1, 3)))
        with pytest.raises(AssetsError, match=r"heads\.npz"):
            load_assets(damaged)

    def test_the_compiled_file_is_small_and_gives_the_same_picture(self, assets, renderer, tmp_path):
        assets.save(tmp_path / "heads.npz")
        assert (tmp_path / "heads.npz").stat().st_size < 14 * 2**20
        parameters = sample_parameters(2)
        views = []
        for source in (assets, load_assets(tmp_path / "heads.npz")):
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


def look(renderer: HeadRenderer, assets: HeadAssets, parameters: HeadParameters, yaw_deg: float = 0.0) -> HeadView:
    renderer.load(build_head(assets, parameters))
    return renderer.render(*orbit_matrices(yaw_deg))


def near_pixel(picture: np.ndarray, u: float, v: float, radius: int = 2) -> np.ndarray:
    """The square around (u,v) in [0,1]."""
    column, row = int(u * RESOLUTION), int(v * RESOLUTION)
    return picture[row - radius : row + radius + 1, column - radius : column + radius + 1]


class TestScans:
    def test_missing_scans_are_named_with_the_way_to_get_them(self, tmp_path):
        with pytest.raises(AssetsError, match=r"generic_neutral_mesh\.obj.*ICT-FaceKit") as caught:
            read_scans(tmp_path)
        assert str(tmp_path) in str(caught.value)

    def test_a_missing_mode_is_named(self, scan_model, tmp_path):
        name = "generic_neutral_mesh.obj"
        (tmp_path / name).write_bytes((SCANS / name).read_bytes())
        with pytest.raises(AssetsError, match=r"identity000\.obj.*ICT-FaceKit"):
            read_scans(tmp_path)

    def test_another_mesh_is_refused(self, tmp_path):
        (tmp_path / "generic_neutral_mesh.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n")
        with pytest.raises(AssetsError, match="4 vertices instead of 26719"):
            read_scans(tmp_path)

    def test_the_repository_and_the_compact_file_are_the_same_model(self, scan_model, tmp_path, monkeypatch):
        monkeypatch.setattr(scan_files, "SCAN_MODES", 2)
        (tmp_path / "FaceXModel").mkdir()
        name = "generic_neutral_mesh.obj"
        (tmp_path / "FaceXModel" / name).write_bytes((SCANS / name).read_bytes())
        for k in range(2):
            rows = (f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in scan_model.neutral + scan_model.modes[k])
            (tmp_path / "FaceXModel" / f"identity{k:03d}.obj").write_text("\n".join(rows))
        np.testing.assert_allclose(read_scans(tmp_path).modes, scan_model.modes[:2], atol=1e-5)

    def test_a_compiled_file_keeps_its_scans_and_takes_no_others(self, scanned, tmp_path):
        path = tmp_path / "heads.npz"
        scanned.save(path)
        assert path.stat().st_size < 14 * 2**20
        again = load_assets(path)
        assert again.scans
        np.testing.assert_array_equal(again.scans.modes, scanned.scans.modes)
        with pytest.raises(AssetsError, match="holds its own scans"):
            load_assets(path, SCANS)

    def test_without_scans_their_entries_change_nothing(self, assets):
        plain = sample_parameters(6)
        skins = [build_head(assets, plain.replace(scan__share=share)).parts[0].positions for share in (0.0, 1.0)]
        assert not assets.scans
        np.testing.assert_array_equal(skins[0], skins[1])

    def test_a_share_of_zero_is_makehumans_own_face(self, assets, scanned):
        own = sample_parameters(6).replace(scan__share=0.0)
        skins = [build_head(source, own).parts[0].positions for source in (assets, scanned)]
        np.testing.assert_allclose(skins[0], skins[1], atol=2e-6)

    def test_modes_move_the_chin_and_the_nose_as_they_move_the_scans(self, scanned, scan_model):
        for vertex, number in ((scanned.landmarks[0], 8), (scanned.landmarks[3], 27)):
            here = scanned.scans.modes[:, vertex].astype(float)
            there = scan_model.modes[:, MULTI_PIE[number]] @ scanned.scans.rotation.T
            scale = (here * there).sum() / (there**2).sum()
            assert 0.08 < scale < 0.105  # decimetres of MakeHuman's head per centimetre of the scans'
            assert np.abs(here - scale * there).max() < 0.15 * np.abs(here).max()

    def test_faces_measure_as_the_scans_do(self, scanned, scan_model):
        there = measure(scanned_heads(scan_model, 80, scanned.scans.rotation))
        here = measure(synthetic_heads(scanned, 80, 1.0))
        off = np.abs(here.mean(0) - there.mean(0))
        # standard errors of two means of 80 reach 0.003
        assert off.max() < 0.008, MEASURES[int(off.argmax())]
        ratio = here.std(0) / there.std(0)
        assert 0.7 < ratio.min() and ratio.max() < 1.7, dict(zip(MEASURES, ratio.round(2)))

    @pytest.mark.parametrize("seed", range(3))
    def test_the_eyes_of_scanned_faces_fall_where_ffhq_alignment_puts_them(self, scanned, seed):
        head = build_head(scanned, sample_parameters(seed).replace(scan__share=1.0))
        eyes = next(part for part in head.parts if part.name == "eyes").positions
        centres = np.stack([eyes[eyes[:, 0] < 0].mean(0), eyes[eyes[:, 0] > 0].mean(0)])
        pixels, _ = project(centres, *orbit_matrices(0))
        np.testing.assert_allclose(pixels * 256, [[97, 118], [159, 118]], atol=9)


DIM = dict(light__strength=0.2, light__ambient=0.5, lighting__second_strength=0.0, light__side=0.0)


class TestLight:
    @pytest.mark.parametrize("side", [-1.0, 1.0])
    def test_the_key_light_comes_from_its_azimuth(self, assets, renderer, side):
        lit = BALD.replace(**DIM | dict(light__strength=2.0, light__azimuth=1.2 * side, light__elevation=0.2))
        rgb = look(renderer, assets, lit).rgb.astype(float)
        left, right = near_pixel(rgb, 0.40, 0.60).mean(), near_pixel(rgb, 0.60, 0.60).mean()
        assert (right - left) * side > 25

    def test_the_second_light_has_its_own_side_and_colour(self, assets, renderer):
        dim = BALD.replace(**DIM)
        more = dict(lighting__second_strength=1.2, lighting__second_azimuth=1.3, lighting__second_warmth=0.3)
        added = look(renderer, assets, dim.replace(**more)).rgb.astype(float) - look(renderer, assets, dim).rgb
        assert near_pixel(added, 0.62, 0.60).mean() > near_pixel(added, 0.38, 0.60).mean() + 20
        red, _, blue = near_pixel(added, 0.62, 0.60).mean((0, 1))
        assert red > blue + 10

    def test_soft_light_has_no_hard_edge_of_shadow(self, assets, renderer):
        sun = BALD.replace(**DIM | dict(light__strength=2.2, light__azimuth=0.9, light__elevation=0.5))
        steepest = []
        for softness in (0.0, 1.0):
            grey = look(renderer, assets, sun.replace(lighting__softness=softness)).rgb.astype(float).mean(2)
            neck = grey[
                int(0.93 * RESOLUTION) : int(0.98 * RESOLUTION), int(0.35 * RESOLUTION) : int(0.65 * RESOLUTION)
            ]
            steepest.append(np.percentile(np.abs(np.diff(neck, axis=1)), 98))
        assert steepest[1] < 0.7 * steepest[0], steepest

    def test_exposure_and_shine_brighten(self, assets, renderer):
        plain = BALD.replace(lighting__exposure=0.0, lighting__shine=0.0, light__azimuth=0.0, light__strength=1.4)
        base = look(renderer, assets, plain).rgb.astype(float)
        brighter = look(renderer, assets, plain.replace(lighting__exposure=0.5)).rgb
        shiny = look(renderer, assets, plain.replace(lighting__shine=1.2)).rgb - base
        assert brighter.mean() > 1.1 * base.mean()
        assert near_pixel(shiny, 0.5, 0.30).mean() > 3  # the forehead

    def test_highlights_do_not_move_with_the_camera(self, assets, renderer):
        shiny = BALD.replace(lighting__shine=1.2, light__strength=1.6)
        renderer.load(build_head(assets, shiny))
        cameras = [orbit_matrices(yaw) for yaw in (-12, 12)]
        first, second = (renderer.render(*camera) for camera in cameras)
        points = unproject(first.depth, *cameras[0])
        place, depth = project(points, *cameras[1])
        column, row = np.moveaxis(np.clip(np.floor(place * RESOLUTION).astype(int), 0, RESOLUTION - 1), -1, 0)
        same = (first.alpha > 0.99) & (np.abs(depth - second.depth[row, column]) < 0.004)
        assert np.median(np.abs(first.rgb[same].astype(int) - second.rgb[row, column][same])) <= 3


class TestHair:
    @pytest.mark.parametrize("style", ["bob01", "bob02", "short03"])
    def test_a_fringe_leaves_the_eyes_free(self, assets, renderer, style):
        worn = BALD.replace(scan__share=0.0, locks__fringe=0.6, locks__wave=0.0, locks__curl=0.0)
        bald, fringed = (look(renderer, assets, head) for head in (worn, worn.with_hairstyle(style)))
        for u in (0.40, 0.60):
            np.testing.assert_allclose(near_pixel(fringed.depth, u, 0.46), near_pixel(bald.depth, u, 0.46), atol=0.01)
        assert (fringed.alpha > 0.5).sum() > 1.03 * (bald.alpha > 0.5).sum()

    def ear(self, assets: HeadAssets, parameters: HeadParameters) -> tuple[float, float]:
        """Where the ear that looks at a camera on the right is in its picture."""
        skin = build_head(assets, parameters).parts[0]
        shell = skin.positions[(skin.rest[:, 0] > 0.80) & (np.abs(skin.rest[:, 1] - 7.1) < 0.15)]
        (u, v), _ = project(shell.mean(0), *orbit_matrices(90))
        return float(u), float(v)

    def test_long_hair_hides_the_ear_and_is_opaque(self, assets, renderer):
        bald = BALD.replace(locks__curl=0.0)
        u, v = self.ear(assets, bald)
        bare, hidden = (look(renderer, assets, head, 90) for head in (bald, bald.with_hairstyle("long01")))
        assert (near_pixel(hidden.alpha, u, v) > 0.99).all()
        assert (near_pixel(bare.depth, u, v) - near_pixel(hidden.depth, u, v)).min() > 0.005

    @pytest.mark.parametrize("style", ["short01", "short02", "short03", "short04", "ponytail01"])
    def test_short_and_tied_hair_shows_the_ear(self, assets, renderer, style):
        u, v = self.ear(assets, BALD)
        bare, shown = (look(renderer, assets, head, 90) for head in (BALD, BALD.with_hairstyle(style)))
        np.testing.assert_allclose(near_pixel(shown.depth, u, v), near_pixel(bare.depth, u, v), atol=0.004)

    def test_receding_hair_shows_the_scalp_in_front_and_keeps_the_nape(self, assets, renderer):
        full = BALD.with_hairstyle("short04").replace(hair__lightness=0.0, hair__grey=0.0, skin__melanin=0.1)
        pictures = [look(renderer, assets, full.replace(locks__receding=r), 0).rgb.astype(float) for r in (0.0, 0.8)]
        crowns = [near_pixel(picture, 0.5, 0.17).mean() for picture in pictures]
        assert crowns[1] > crowns[0] + 40
        backs = [look(renderer, assets, full.replace(locks__receding=r), 180).rgb.astype(float) for r in (0.0, 0.8)]
        assert abs(near_pixel(backs[1], 0.5, 0.55).mean() - near_pixel(backs[0], 0.5, 0.55).mean()) < 12

    def test_cropped_hair_stands_off_the_scalp_from_its_shortest_length_on(self, assets):
        shaven, cropped = (build_head(assets, BALD.replace(hair__length=length)) for length in (0.2, 0.8))
        assert all(part.name != "hair" for part in shaven.parts)
        hair = next(part for part in cropped.parts if part.name == "hair")
        assert 0.004 < hair.fur < 0.1 and hair.shells >= 4

    def test_grey_and_dye_change_the_hair_alone(self, assets, renderer):
        dark = BALD.with_hairstyle("long01").replace(hair__lightness=0.1, hair__grey=0.0, locks__dye=0.0)
        plain, grey, dyed = (
            look(renderer, assets, head, 180).rgb.astype(float)
            for head in (dark, dark.replace(hair__grey=1.0), dark.replace(locks__dye=1.0, locks__dye_hue=0.67))
        )
        assert near_pixel(grey, 0.5, 0.4, 8).mean() > near_pixel(plain, 0.5, 0.4, 8).mean() + 40
        red, _, blue = near_pixel(dyed, 0.5, 0.4, 8).mean((0, 1))
        assert blue > red + 15

    def test_strands_have_contrast_at_one_to_two_pixels_across_and_little_along(self, assets):
        fine = HeadRenderer(256)
        straight = BALD.with_hairstyle("long01").replace(
            hair__lightness=0.5, hair__grey=0.0, locks__wave=0.0, locks__curl=0.0, lighting__exposure=0.0
        )
        fine.load(build_head(assets, straight))
        grey = fine.render(*orbit_matrices(180)).rgb.astype(float).mean(2)[110:200, 90:166]  # strands hang down
        across, along = np.abs(np.diff(grey, axis=1)).mean(), np.abs(np.diff(grey, axis=0)).mean()
        assert across > 2.5 and across > 2.5 * along


class TestWear:
    def test_glasses_are_before_the_eyes_and_reach_the_ears(self, assets, renderer):
        bare = BALD.replace(wear__glasses=0.0, wear__hat=0.0, wear__headband=0.0)
        dark = bare.replace(wear__glasses=1.0, wear__glasses_dark=1.0)
        eyes, lenses = (look(renderer, assets, head) for head in (bare, dark))
        for u in (0.39, 0.61):
            assert (near_pixel(eyes.depth, u, 0.47, 1) - near_pixel(lenses.depth, u, 0.47, 1)).min() > 0.002
            assert near_pixel(lenses.rgb, u, 0.47, 1).mean() < 70
        worn = next(part for part in build_head(assets, dark).parts if part.name == "glasses").positions
        assert np.ptp(worn[:, 2]) > 0.15 and np.ptp(worn[:, 0]) > 0.25

    @pytest.mark.parametrize("style", ["none", "short03", "long01"])
    def test_a_cap_covers_the_crown_and_no_hair_comes_through(self, assets, renderer, style):
        worn = BALD.with_hairstyle(style).replace(
            wear__hat=1.0, wear__glasses=0.0, wear__hat_lightness=0.9, wear__hat_hue=0.33, hair__lightness=0.0,
            lighting__exposure=0.0, light__strength=1.3, light__ambient=0.8,
        )  # fmt: skip
        for yaw in (0, 90, 180):
            view = look(renderer, assets, worn, yaw)
            top = np.argwhere(view.alpha > 0.99)[:, 0].min()
            crown = view.rgb[top + 3 : top + 10, RESOLUTION // 2 - 6 : RESOLUTION // 2 + 6].astype(float)
            assert crown[..., 1].min() > 70  # a light green cap over black hair

    def test_nothing_is_worn_below_one_half(self, assets):
        bare = BALD.replace(wear__glasses=0.4, wear__hat=0.4, wear__headband=0.4)
        assert {part.name for part in build_head(assets, bare).parts} <= {"skin", "eyes", "lashes", "teeth", "hair"}
