"""Safety-Gymnasium 1.0.0, unmodified, imported on a current stack.

Its own pins (gymnasium 0.28.1, mujoco 2.3.3, Python < 3.11) cannot be met. What has to be put right is put right here:
while importing, or on the upstream class concerned; nothing is written to disk.
"""

import builtins
import copy
import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import mujoco
import numpy as np
import yaml

VELOCITY_MODULE = "safety_gymnasium.tasks.safe_velocity.safety_{name}_velocity_v1"
# The world's sky, 191 MB of pictures to compile at each reset, becomes a small gradient: it is scenery only.
PLAIN_SKY = {
    "@type": "skybox", "@builtin": "gradient", "@rgb1": "0.5 0.6 0.75", "@rgb2": "0.1 0.1 0.15",
    "@width": "8", "@height": "8",
}  # fmt: skip
# What mujoco 2.3.3 computes for the mesh of the Racecar's body; from 3.0 on it is another inertia.
RACECAR_BODY = "car_body"
RACECAR_MASS = 0.017605537618291808  # kg
RACECAR_INERTIA = (0.0002706324171671688, 0.0002385001307776043, 4.125453652032671e-05)  # kg m^2
RACECAR_IPOS = (0.15557992747876107, -0.0003826658731145229, 6.812385950941158e-10)  # m
RACECAR_IQUAT = (0.001766899788279318, 0.7071045736417905, -0.001766899788279318, 0.7071045736417905)
# Whether worlds are compiled with what is only to be looked at.
_drawable: ContextVar[bool] = ContextVar("drawable", default=True)


@contextmanager
def drawable(wanted: bool) -> Iterator[None]:
    """Compile worlds with, or without, what is only looked at; the Racecar's meshes take 40 MB in each environment."""
    token = _drawable.set(wanted)
    try:
        yield
    finally:
        _drawable.reset(token)


def load_builder() -> type:
    """Upstream's ``Builder``, which makes the navigation tasks."""
    with _importable():
        builder = importlib.import_module("safety_gymnasium.builder")
        world = importlib.import_module("safety_gymnasium.world")
        base_agent = importlib.import_module("safety_gymnasium.bases.base_agent")
    _put_right_agents(base_agent)
    _put_right_world(world)
    return builder.Builder


def load_resampling_error() -> type[Exception]:
    """What upstream raises when it finds no place for a goal."""
    with _importable():
        return importlib.import_module("safety_gymnasium.utils.common_utils").ResamplingError


def load_velocity_class(name: str) -> type:
    """Upstream's environment of a velocity task, for example ``half_cheetah``."""
    with _importable():
        module = importlib.import_module(VELOCITY_MODULE.format(name=name))
    upstream_class = next(
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    )

    class VelocityEnv(upstream_class):
        def set_state(self, qpos, qvel):
            super().set_state(qpos, qvel)
            # mujoco 2 normalised quaternions in mj_forward; mujoco 3 leaves that to the caller.
            mujoco.mj_normalizeQuat(self.model, self.data.qpos)

    return VelocityEnv


def _name_glfw() -> None:
    """Tell glfw, which upstream imports, where its library is.

    It would try each it finds in a process of its own, which complains on stderr where ours is ended meanwhile.
    """
    spec = importlib.util.find_spec("glfw")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        library = Path(folder) / "x11" / "libglfw.so"
        if library.is_file():
            os.environ.setdefault("PYGLFW_LIBRARY", str(library))


@contextmanager
def _importable() -> Iterator[None]:
    """Import below the upstream package without running its ``__init__``, and let dataclasses take array defaults."""
    if "safety_gymnasium" not in sys.modules:
        spec = importlib.util.find_spec("safety_gymnasium")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'safety_gymnasium'", name="safety_gymnasium")
        folder = Path(next(iter(spec.submodule_search_locations)))
        # The real __init__ imports parts of Gymnasium that are gone (vector, wrappers, multi-agent).
        package = types.ModuleType("safety_gymnasium")
        package.__path__ = [str(folder)]
        package.__file__ = str(folder / "__init__.py")
        sys.modules["safety_gymnasium"] = package
    if "glfw" not in sys.modules:
        _name_glfw()
    original = dataclasses.dataclass
    dataclasses.dataclass = _dataclass_with_array_defaults
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        dataclasses.dataclass = original


def _dataclass_with_array_defaults(cls=None, _dataclass=dataclasses.dataclass, **options):
    """Python 3.11 refuses an ndarray as a default: make it a default factory."""
    if cls is None:
        return lambda cls: _dataclass_with_array_defaults(cls, _dataclass, **options)
    for name in inspect.get_annotations(cls):
        default = cls.__dict__.get(name)
        if isinstance(default, np.ndarray):
            setattr(cls, name, dataclasses.field(default_factory=default.copy))
    return _dataclass(cls, **options)


def _put_right_agents(base_agent: ModuleType) -> None:
    agent_class = base_agent.BaseAgent
    if hasattr(agent_class, "_put_right"):
        return
    original = agent_class._init_jnt_sensors

    def init_joint_sensors(self):
        engine = self.engine
        self.engine = SimpleNamespace(model=_ModelWithArrayIndices(engine.model))
        original(self)
        self.engine = engine

    agent_class._init_jnt_sensors = init_joint_sensors
    load_model = agent_class._load_model

    def load_model_without_meshes(self):
        path = Path(base_agent.BASE_DIR) / self.base
        if _drawable.get() or "<mesh" not in path.read_text():
            load_model(self)
            return
        model = mujoco.MjModel.from_xml_string(_without_meshes(path.read_text(), path.parent))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        self.set_engine(base_agent.Engine(model, data))

    agent_class._load_model = load_model_without_meshes
    # numpy 2.4: float() of an array with one element raises.
    base_agent.float = lambda value: builtins.float(np.asarray(value).item())
    agent_class._put_right = True


class _ModelWithArrayIndices:
    """A model whose joints can be looked up by an array of one index, as upstream does."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def jnt(self, index):
        return self._model.jnt(int(np.asarray(index).item()))


def _put_right_world(world: ModuleType) -> None:
    world_class = world.World
    if hasattr(world_class, "_put_right"):
        return
    # Upstream reads and parses its asset list at each reset.
    with open(Path(world.BASE_DIR) / "configs" / "assets.yaml", encoding="utf-8") as file:
        assets = yaml.safe_load(file)
    assets["textures"]["skybox"] = PLAIN_SKY
    world.yaml = SimpleNamespace(load=lambda file, Loader: copy.deepcopy(assets), FullLoader=None)
    world.xmltodict = SimpleNamespace(
        parse=_ParseOnce(world.xmltodict.parse), unparse=_Unparse(world.xmltodict.unparse)
    )
    original = world_class.build

    def build(self):
        original(self)
        if "racecar" in self.agent_base:
            restore_racecar_inertia(self.model, self.data)

    world_class.build = build
    world_class._put_right = True


class _ParseOnce:
    """Parses the robots' XML once each; the caller gets a copy of its own."""

    def __init__(self, parse):
        self._parse = parse
        self._parsed: dict[str, dict] = {}

    def __call__(self, text):
        if len(text) < 2000:  # a snippet with this episode's positions
            return self._parse(text)
        if not _drawable.get():
            text = _without_meshes(text)
        if text not in self._parsed:
            parsed = self._parsed[text] = self._parse(text)
            assets = parsed["mujoco"].get("asset") or {}
            if isinstance(assets.get("mesh"), dict):
                assets["mesh"] = [assets["mesh"]]  # upstream adds to a list
        return copy.deepcopy(self._parsed[text])


class _Unparse:
    """Writes a world's XML; where nobody draws, without what is only looked at."""

    def __init__(self, unparse):
        self._unparse = unparse

    def __call__(self, tree):
        if not _drawable.get():
            _remove_scenery(tree["mujoco"]["worldbody"])
        return self._unparse(tree)


def _remove_scenery(worldbody: dict) -> None:
    """Take cameras, lights and the shapes of what stands still and touches nothing; hazards and goals stay as bodies.

    Each of them costs time in every substep, and changes no number of it.
    """
    robot, *things = worldbody["body"]
    for name in ("camera", "light"):
        worldbody.pop(name, None)
        robot.pop(name, None)
    for body in things:
        if "freejoint" not in body and (body["geom"]["@contype"], body["geom"]["@conaffinity"]) == ("0", "0"):
            del body["geom"]


@lru_cache
def _without_meshes(text: str, folder: Path | None = None) -> str:
    """A robot's XML without the meshes that neither touch anything nor weigh; files are named from the folder on."""
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for geom in parent.findall("geom"):
            if (geom.get("type"), geom.get("contype"), geom.get("density")) == ("mesh", "0", "0"):
                parent.remove(geom)
    used = {geom.get("mesh") for geom in root.iter("geom")}
    for asset in root.iter("asset"):
        for mesh in asset.findall("mesh"):
            if mesh.get("name") not in used:
                asset.remove(mesh)
    for compiler in root.iter("compiler"):
        if folder is not None and "meshdir" in compiler.attrib:
            compiler.set("meshdir", str(folder / compiler.attrib["meshdir"]))
    return ElementTree.tostring(root, encoding="unicode")


def restore_racecar_inertia(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Give the Racecar's body the mass and inertia that mujoco 2.3.3 computed for it."""
    body = model.body(RACECAR_BODY).id
    model.body_mass[body] = RACECAR_MASS
    model.body_inertia[body] = RACECAR_INERTIA
    model.body_ipos[body] = RACECAR_IPOS
    model.body_iquat[body] = RACECAR_IQUAT
    mujoco.mj_setConst(model, data)
    mujoco.mj_resetData(model, data)
    mujoco.mj_forward(model, data)
