"""From a config to a run folder.

from tf_mmloss.train import Config, run

metrics = run(Config(dataset="my_photos", method="ldam-drw"), "runs/my-photos")
"""

from typing import TYPE_CHECKING, Any

from tf_mmloss.train import processor

if TYPE_CHECKING:
    from tf_mmloss.train.config import Config
    from tf_mmloss.train.experiment import run

__all__ = ["Config", "run"]

processor.use_onednn()


def __getattr__(name: str) -> Any:
    if name == "Config":
        from tf_mmloss.train.config import Config

        return Config
    if name == "run":
        from tf_mmloss.train.experiment import run

        return run
    raise AttributeError(f"module 'tf_mmloss.train' has no attribute {name!r}")
