"""Calls that make maps: sync and async twins."""

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from typing import Any

from . import _project, maps, optimizing
from ._connection import AsyncConnection, Connection
from .errors import StatusError


class Projecting(Connection):
    """The part of Client that makes maps."""

    def project(
        self,
        items: "maps.Many",
        method: str = "t_sne",
        *,
        onto: "maps.Onto | None" = None,
        layer: str = "",
        pooling: str | None = None,
        component_count: int | None = None,
        metric: str | None = None,
        seed: int | None = None,
        grid: bool = False,
        model: str = "",
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "maps.Projection":
        """A map on which what is alike lies close by.

        Args:
            items: Photos, see Photo, which become codes; or codes of your own, an array of
                n × numbers. At least 4, 2 with "pca", 1 beside onto; at most 20000.
            method: "t_sne", "umap" or "pca": the two first principal components alone.
            onto: A map that they are placed on, which stays as it is; not with "umap".
            layer: Of photos: the layer whose activation is the code; what the classifier gets
                when empty.
            pooling: Of a layer with places: "mean" (the default), "max" or "flatten".
            component_count: Principal components that codes are reduced to first; 0: they are
                not. 50, or fewer where there are fewer, when None.
            metric: "euclidean" (the default), "cosine" or "manhattan".
            seed: 0 when None: the same seed gives the same map.
            grid: Whether points are assigned to a grid, too: at most 2000.
            model: Of photos: its name; the server's default model when empty.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the method in the contract: perplexity, early_exaggeration,
                early_exaggeration_step_count, step_count and learning_rate of "t_sne";
                neighbor_count and min_distance of "umap".

        Returns:
            Its events, one by one, and its result. Photos are read as they are sent.

        Raises:
            BadArgument: An argument is of no use.
        """
        options = {
            "layer": layer,
            "pooling": pooling,
            "component_count": component_count,
            "metric": metric,
            "seed": seed,
            "grid": grid,
            "model": model,
        }
        course = _project.Course(items, method, onto, options, parameters)
        return optimizing.Course(self._mapped(course, timeout_s), maps.CodeMap)

    def _mapped(self, course: _project.Course, timeout_s: float) -> Generator[Any, None, None]:
        try:
            with closing(self._stream("Project", course, timeout_s)) as responses:
                for response in responses:
                    if (event := _project.event(response)) is not None:
                        yield event
        except StatusError as error:
            if course.failure is not None:
                raise course.failure from error
            raise


class AsyncProjecting(AsyncConnection):
    """The part of AsyncClient that makes maps."""

    def project(
        self,
        items: "maps.Many",
        method: str = "t_sne",
        *,
        onto: "maps.Onto | None" = None,
        layer: str = "",
        pooling: str | None = None,
        component_count: int | None = None,
        metric: str | None = None,
        seed: int | None = None,
        grid: bool = False,
        model: str = "",
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "maps.AsyncProjection":
        """A map on which what is alike lies close by: see Client.project."""
        options = {
            "layer": layer,
            "pooling": pooling,
            "component_count": component_count,
            "metric": metric,
            "seed": seed,
            "grid": grid,
            "model": model,
        }
        course = _project.Course(items, method, onto, options, parameters)
        return optimizing.AsyncCourse(self._mapped(course, timeout_s), maps.CodeMap)

    async def _mapped(self, course: _project.Course, timeout_s: float) -> AsyncGenerator[Any, None]:
        try:
            async with aclosing(self._stream("Project", course, timeout_s)) as responses:
                async for response in responses:
                    if (event := _project.event(response)) is not None:
                        yield event
        except StatusError as error:
            if course.failure is not None:
                raise course.failure from error
            raise
