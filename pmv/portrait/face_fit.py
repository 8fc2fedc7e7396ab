"""A statistical face fitted to the landmarks of one picture: who, which expression, and from where.

Maximum a posteriori under `pmv.portrait.statistical_face`. A landmark is taken to appear at

    p = project(R x(a, b) + t) + w (N c + ε),    a, c ~ N(0, 1),   ε ~ N(0, diag(σ²)),

x the point of the face, w the width of the face in the picture, and N the ways in which the landmark network errs at
many landmarks at once (it knows faces by heart and draws a mean one where it is not sure). N and σ are measured where
the truth is known (`pmv.training.face`); without N, 468 landmarks would count as 468 independent witnesses and the
prior would have no say. Solved by Gauss-Newton steps on 64-bit floats, residuals beyond `_SOFT` deviations counting
less (Huber 1964), expressions kept within what a face can do.

Everything is told in the camera's frame, in centimetres: one picture says nothing about the size of what it shows. In a
generator's world the face is scaled about the camera's centre, which does not move it in the picture.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pmv.errors import InputError
from pmv.geometry.camera import EG3D_RADIUS, Camera
from pmv.portrait.statistical_face import StatisticalFace, face_width, shipped_face

_SOFT = 3.0  # standard deviations from which a residual counts linearly
_HIDDEN, _SEEN = 0.0, 0.35  # cosine between normal and direction to the camera: no weight, full weight
_ROUNDS = 12
_EXPRESSION_SIGMA = 0.3  # of the mean of both sides; of full expressions
_ASYMMETRY_SIGMA = 0.1  # of half their difference
_UNMODELLED = 0.08  # centimetres: what a person's skin differs by that no mode tells
_PHOTO_SHARE = 0.5  # of `StatisticalFace.landmark_offset`: what of it is the network's, not the twelve people's own
_NOISE = 2.5
_OUTSIDE = 0.3  # cosine between normal and the face's own axis
_EVERY = 12  # of the skin's vertices, one in so many is compared with a given depth
_DEPTH_WITNESSES = 40.0  # what a depth map counts as, in independent points: its errors are broad


@dataclass(frozen=True)
class FaceFit:
    """A face as one picture shows it. The camera's frame has OpenCV axes; lengths are centimetres.

    Attributes:
        vertices: [V,3] of the statistical face, in the camera's frame.
        deviation: [V] standard deviation of the vertices' z-depth when the depth of the face as a whole is known.
        rotation: [3,3] and translation: [3] from the face's frame to the camera's.
        identity: [K], expression: [E] coefficients.
        intrinsics: [3,3] of the camera, normalised by the picture's width.
        residual: root mean square of what the fit leaves, of the landmarks that are seen, in picture widths.
        surprise: the same in standard deviations of the model, the coefficients among them: about 1 for an ordinary
            face.
        face: what was fitted.
    """

    vertices: np.ndarray
    deviation: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    intrinsics: np.ndarray
    residual: float
    surprise: float
    face: StatisticalFace

    def scale(self, radius: float = EG3D_RADIUS) -> float:
        """World units a centimetre for which the camera stands `radius` from the origin of EG3D's world: there, a
        camera's distance is fixed and heads differ in size."""
        anchor = self.face.anchor
        away = anchor.rotation @ -(self.rotation.T @ self.translation)
        # |scale · away + offset| = radius
        a, b, c = away @ away, away @ anchor.offset, anchor.offset @ anchor.offset - radius**2
        return float((-b + np.sqrt(max(b * b - a * c, 0.0))) / a)

    def camera(self, radius: float = EG3D_RADIUS) -> Camera:
        """The camera (batch of 1) in EG3D's world, `radius` from its origin, as EG3D's labels have it."""
        anchor = self.face.anchor
        cam2world = np.eye(4)
        cam2world[:3, :3] = anchor.rotation @ self.rotation.T
        cam2world[:3, 3] = anchor.offset - self.scale(radius) * (cam2world[:3, :3] @ self.translation)
        return Camera(torch.from_numpy(cam2world).float()[None], torch.from_numpy(self.intrinsics).float()[None])


def fit_face(
    uv: np.ndarray,
    intrinsics: np.ndarray,
    face: StatisticalFace | None = None,
    modes: int | None = None,
    noise: float = _NOISE,
    depth: np.ndarray | None = None,
    depth_sigma: float = 0.005,
) -> FaceFit:
    """The most probable face behind landmarks.

    Args:
        uv: [468,2] MediaPipe's landmarks in picture widths, (0,0) the upper left corner.
        intrinsics: [3,3] of the camera, normalised by the picture's width (EG3D: focal 4.2647, middle ½).
        face: None = the shipped one.
        modes: of identity; None = all.
        noise: of the landmarks, in units of the model's own, which is measured on drawings: photos are harder.
        depth: [D,D] z-depth of the head in the same picture as somebody else has it, in any unit, 0 or not finite where
            there is none: a second witness, mostly of how the head is turned.
        depth_sigma: its standard deviation as a part of the depth (EG3D's world: .0135 of 2.7).

    Raises:
        InputError: landmarks that are not 468 finite points of a plane.
    """
    face = face or shipped_face()
    if uv.shape != (len(face.landmark_sigma), 2) or not np.isfinite(uv).all() or np.ptp(uv, axis=0).min() <= 0:
        raise InputError(f"a face is fitted to landmarks [468,2], finite and not all in one place, got {uv.shape}")
    problem = _Problem.of(uv.astype(np.float64), intrinsics.astype(np.float64), face, modes, noise)
    state = problem.start()
    for turn in range(_ROUNDS):
        if depth is not None and turn >= _ROUNDS // 3:
            problem = problem.with_depth(depth, depth_sigma, state)
        state = problem.step(state)
    return problem.finish(state)


@dataclass(frozen=True)
class _State:
    rotation: np.ndarray
    translation: np.ndarray
    coefficients: np.ndarray  # identity, expression, the network's errors


@dataclass(frozen=True)
class _Problem:
    """What does not change between steps.

    Attributes:
        points: [468,3], basis: [468,3,K+E] of the landmarks, face's frame; habits: [468,2,M] of the network in picture
            widths; sigma: [468,2] in picture widths.
        precision: [K+E+M,K+E+M] of the prior of the coefficients.
        limits: [2,K+E+M] lower and upper.
        normals: [468,3] of the mean face at the landmarks.
        skin: vertices that are compared with a depth, their mean: [Q,3] and basis: [Q,3,K+E].
        target: [Q] z-depth of these in any unit, not a number where there is none, and the sigma of its logarithm;
            None = no depth.
    """

    uv: np.ndarray
    intrinsics: np.ndarray
    face: StatisticalFace
    modes: int
    points: np.ndarray
    basis: np.ndarray
    habits: np.ndarray
    sigma: np.ndarray
    precision: np.ndarray
    limits: np.ndarray
    normals: np.ndarray
    skin_mean: np.ndarray
    skin_basis: np.ndarray
    target: np.ndarray | None = None
    target_sigma: float = 1.0

    @classmethod
    def of(
        cls, uv: np.ndarray, intrinsics: np.ndarray, face: StatisticalFace, modes: int | None, noise: float
    ) -> "_Problem":
        kept = face.identity.shape[-1] if modes is None else min(modes, face.identity.shape[-1])
        width = face_width(uv)
        basis = np.concatenate(
            [face.at_landmarks(face.identity[..., :kept]), face.at_landmarks(face.expression)], -1
        ).astype(np.float64)
        expressions, habits = len(face.expression_names), face.landmark_modes.shape[-1]
        count = kept + expressions + habits
        precision = np.eye(count)
        some = slice(kept, kept + expressions)
        precision[some, some] = _expression_precision(face.expression_names)
        limits = np.tile([[-np.inf], [np.inf]], (1, count))
        limits[:, some] = [[0.0], [1.0]]
        # not the insides of nostrils and lips, which a depth map does not see
        skin = np.flatnonzero((face.skin > 0.5) & (face.normals(face.mean)[:, 2] > _OUTSIDE))[::_EVERY]
        skin_basis = np.concatenate([face.identity[skin, :, :kept], face.expression[skin]], -1).astype(np.float64)
        return cls(
            uv,
            intrinsics,
            face,
            kept,
            face.at_landmarks(face.mean) + _PHOTO_SHARE * face.landmark_offset,
            basis,
            face.landmark_modes * width * noise,
            face.landmark_sigma * width * noise,
            precision,
            limits,
            face.at_landmarks(face.normals(face.mean)),
            face.mean[skin],
            skin_basis,
        )

    def with_depth(self, depth: np.ndarray, sigma: float, state: _State) -> "_Problem":
        """The problem with a depth map [D,D] as a further witness, read where the state's vertices appear."""
        local = self._skin(state) @ state.rotation.T + state.translation
        place = np.floor(self._project(local) * depth.shape[::-1]).astype(int)
        inside = ((place >= 0) & (place < depth.shape[::-1])).all(1)
        place = np.clip(place, 0, np.array(depth.shape[::-1]) - 1)
        found = depth[place[:, 1], place[:, 0]].astype(np.float64)
        found[~(inside & np.isfinite(found) & (found > 0))] = np.nan
        if np.isfinite(found).sum() < 8:
            return replace(self, target=None)
        return replace(self, target=found, target_sigma=sigma)

    def _skin(self, state: _State) -> np.ndarray:
        return self.skin_mean + self.skin_basis @ state.coefficients[: self.basis.shape[-1]]

    def start(self) -> _State:
        """The mean face under a scaled orthographic projection (POS, DeMenthon and Davis 1995)."""
        focal = self.intrinsics[[0, 1], [0, 1]]
        plane = (self.uv - self.intrinsics[:2, 2]) / focal
        middle = self.points.mean(0)
        weight = (1 / self.sigma.mean(1))[:, None]
        rows = np.linalg.lstsq((self.points - middle) * weight, (plane - plane.mean(0)) * weight, rcond=None)[0].T
        scale = np.sqrt(np.linalg.norm(rows[0]) * np.linalg.norm(rows[1]))
        u, _, v = np.linalg.svd(rows)
        first = u @ v[:2]
        rotation = np.concatenate([first, np.cross(first[0], first[1])[None]])
        depth = 1 / scale
        translation = np.array([*(plane.mean(0) * depth), depth]) - rotation @ middle
        return _State(rotation, translation, np.zeros(len(self.precision)))

    def _points(self, state: _State) -> np.ndarray:
        return self.points + self.basis @ state.coefficients[: self.basis.shape[-1]]

    def _project(self, local: np.ndarray) -> np.ndarray:
        """[468,3] in the camera's frame → [468,2]."""
        return (local @ self.intrinsics.T)[:, :2] / local[:, 2:]

    def residual(self, state: _State) -> np.ndarray:
        """[468,2] in standard deviations."""
        local = self._points(state) @ state.rotation.T + state.translation
        habit = self.habits @ state.coefficients[self.basis.shape[-1] :]
        return (self.uv - self._project(local) - habit) / self.sigma

    def seen(self, state: _State) -> np.ndarray:
        """[468] weight of each landmark in [0,1]: 0 where the face turns away."""
        towards = -state.rotation.T @ state.translation - self._points(state)
        cosine = (self.normals * towards).sum(1) / np.linalg.norm(towards, axis=1)
        return np.clip((cosine - _HIDDEN) / (_SEEN - _HIDDEN), 0.0, 1.0)

    def _split(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
        return state.coefficients[: self.modes], state.coefficients[self.modes : self.basis.shape[-1]]

    def system(self, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Matrix and right-hand side of the normal equations, unknowns turn (3, camera's axes, about the landmarks'
        middle), shift (3) and coefficients; and the weights [468,2]."""
        turned = self._points(state) @ state.rotation.T
        local = turned + state.translation
        value = self._project(local)
        # d project / d local
        inverse = 1 / local[:, 2]
        slope = np.zeros((len(local), 2, 3))
        slope[:, 0, 0], slope[:, 0, 1] = self.intrinsics[0, 0], self.intrinsics[0, 1]
        slope[:, 1, 1] = self.intrinsics[1, 1]
        slope[:, :, 2] = self.intrinsics[:2, 2] - value
        slope *= inverse[:, None, None]
        middle, habits = turned.mean(0), self.habits.shape[-1]
        around = turned - middle
        turn = np.stack([np.cross(axis, around) for axis in np.eye(3)], -1)
        change = np.concatenate([turn, np.broadcast_to(np.eye(3), turn.shape), state.rotation @ self.basis], -1)
        jacobian = np.concatenate([slope @ change, self.habits], -1) / self.sigma[..., None]
        residual = self.residual(state)
        size = np.linalg.norm(residual, axis=1) / np.sqrt(2)
        weight = self.seen(state) * np.minimum(1.0, _SOFT / np.maximum(size, 1e-9))
        weight = np.repeat(weight[:, None], 2, 1)
        flat = jacobian.reshape(-1, jacobian.shape[-1])
        weighted = flat * weight.reshape(-1, 1)
        matrix, vector = weighted.T @ flat, weighted.T @ residual.ravel()
        if self.target is not None:
            turned = self._skin(state) @ state.rotation.T
            away = turned + state.translation
            wrong = np.log(self.target / away[:, 2])
            known = np.isfinite(wrong)
            wrong = (wrong - np.median(wrong[known]))[known] / self.target_sigma
            turned = turned - middle
            slope = np.zeros((len(turned), jacobian.shape[-1]))
            slope[:, 0], slope[:, 1], slope[:, 5] = turned[:, 1], -turned[:, 0], 1.0
            slope[:, 6 : jacobian.shape[-1] - habits] = np.einsum("x,qxk->qk", state.rotation[2], self.skin_basis)
            slope = (slope / away[:, 2:])[known]
            slope = (slope - slope.mean(0)) / self.target_sigma  # the depth of the whole is free
            trust = np.minimum(1.0, 1.5 / np.maximum(np.abs(wrong), 1e-9)) * _DEPTH_WITNESSES / len(wrong)
            matrix += slope.T @ (slope * trust[:, None])
            vector += slope.T @ (wrong * trust)
        matrix[6:, 6:] += self.precision
        vector[6:] -= self.precision @ state.coefficients
        matrix[:6, :6] += 1e-9 * np.eye(6) * np.trace(matrix[:6, :6])
        return matrix, vector, weight

    def step(self, state: _State) -> _State:
        """One Gauss-Newton step; coefficients that would leave their limits stop there, and the others make up."""
        matrix, vector, _ = self.system(state)
        lower, upper = self.limits - state.coefficients
        fixed = np.full(len(vector), np.nan)
        for _ in range(8):
            free = np.isnan(fixed)
            change = np.where(free, 0.0, fixed)
            change[free] = np.linalg.solve(
                matrix[np.ix_(free, free)], vector[free] - matrix[np.ix_(free, ~free)] @ change[~free]
            )
            beyond = (change[6:] < lower - 1e-12) | (change[6:] > upper + 1e-12)
            if not beyond.any():
                break
            fixed[6:][beyond] = np.clip(change[6:], lower, upper)[beyond]
        turn = Rotation.from_rotvec(change[:3]).as_matrix()
        middle = (self._points(state) @ state.rotation.T).mean(0)
        return _State(
            turn @ state.rotation,
            state.translation + middle - turn @ middle + change[3:6],
            np.clip(state.coefficients + change[6:], *self.limits),
        )

    def finish(self, state: _State) -> FaceFit:
        identity, expression = self._split(state)
        vertices = self.face.shape(identity, expression) @ state.rotation.T + state.translation
        matrix, _, weight = self.system(state)
        residual = self.residual(state)
        seen = self.seen(state)[:, None]
        plain = float(np.sqrt(((residual * self.sigma) ** 2 * seen).sum() / max(seen.sum(), 1e-9) / 2))
        prior = state.coefficients @ self.precision @ state.coefficients
        total = (weight * residual**2).sum() + prior
        surprise = float(np.sqrt(total / max(2 * seen.sum(), 1.0)))
        return FaceFit(
            vertices,
            self._deviation(state, matrix),
            state.rotation,
            state.translation,
            identity,
            expression,
            self.intrinsics,
            plain,
            surprise,
            self.face,
        )

    def _deviation(self, state: _State, matrix: np.ndarray) -> np.ndarray:
        """See `FaceFit.deviation`: the posterior of Laplace's approximation, the mean depth of the skin taken out."""
        covariance = np.linalg.inv(matrix)
        face, count = self.face, 6 + self.basis.shape[-1]
        turned = face.shape(*self._split(state)) @ state.rotation.T
        around = turned - (self._points(state) @ state.rotation.T).mean(0)
        depth = np.zeros((len(turned), count))
        depth[:, 0], depth[:, 1] = around[:, 1], -around[:, 0]  # z of axis × around
        depth[:, 5] = 1.0
        modes = np.concatenate([face.identity[..., : self.modes], face.expression], -1)
        depth[:, 6:] = np.einsum("x,vxk->vk", state.rotation[2], modes)
        # what scales the whole face about the camera does not count either
        local = turned + state.translation
        depth /= local[:, 2:]
        depth -= (face.skin @ depth / face.skin.sum())[None]
        depth *= local[:, 2:]
        variance = np.einsum("vi,ij,vj->v", depth, covariance[:count, :count], depth, optimize=True)
        return np.sqrt(np.maximum(variance, 0.0) + _UNMODELLED**2)


def _expression_precision(names: tuple[str, ...]) -> np.ndarray:
    """[E,E] inverse covariance of expressions: the two sides of a face move together."""
    covariance = np.eye(len(names)) * _EXPRESSION_SIGMA**2
    for left, name in enumerate(names):
        if name.endswith("_L") and name[:-2] + "_R" in names:
            right = names.index(name[:-2] + "_R")
            both = _EXPRESSION_SIGMA**2 * np.ones((2, 2)) + _ASYMMETRY_SIGMA**2 * np.array([[1, -1], [-1, 1]])
            covariance[np.ix_([left, right], [left, right])] = both
    return np.linalg.inv(covariance)
