"""The demo's world beside a run: built once, served while the run lasts. The only door from the pipeline to demo/."""

import contextlib
from collections.abc import Callable, Iterator

from pipeline.config import Config
from pipeline.storage import LocalStorage, open_storage
from schemas.errors import RequestError

FOLDER = "world"
"""RUN/world: scenes, metadata and weights; presets name it as ${run}/world."""


@contextlib.contextmanager
def scene_world(config: Config, run_dir: str, say: Callable[[str], None] = lambda text: None) -> Iterator[Config]:
    """The configuration with the world's server behind its host names; unchanged where it asks for no world.

    Raises:
        RequestError: the run directory is not a local folder.
    """
    if config.world is None:
        yield config
        return
    from demo.server import WorldServer
    from demo.weights import make_weights
    from demo.world import build_world

    storage = open_storage(run_dir)
    if not isinstance(storage, LocalStorage):
        raise RequestError("The demo's scene world needs a run directory on this machine, such as runs/demo.")
    folder = storage.root / FOLDER
    if not (folder / "world.json").exists():
        say("Rendering the scene world ...")
    make_weights(folder / "weights")
    world = build_world(folder, scenes=config.world.scenes, seed=config.world.seed)
    with WorldServer(world) as server:
        download = config.download.model_copy(update={"connect_to": server.connect_to})
        yield config.model_copy(update={"download": download})
