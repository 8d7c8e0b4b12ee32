"""Calls that make images, for asyncio: the twin of _making.py."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from . import _attack, _optimize, _stylize, _universal, optimizing, stylizing, types
from ._connection import AsyncConnection
from .errors import StatusError


class AsyncMaking(AsyncConnection):
    """The part of AsyncClient that makes images."""

    def optimize(
        self,
        objectives: "optimizing.Objectives",
        *,
        photo: "types.Photo | None" = None,
        guide: "types.Photo | None" = None,
        score: str | None = None,
        model: str = "",
        format: str | None = None,
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "optimizing.AsyncOptimization":
        """Images made for what the network is after: see Client.optimize.

        Photos are read at the first step, and missed there.
        """
        spec = _optimize.optimize_request(
            objectives,
            score=score,
            model=model,
            format=format,
            include_pixels=include_pixels,
            parameters=parameters,
        )
        given = {"image": photo, "guide": guide}
        course = _optimize.Course(
            spec,
            timeout_s,
            photos=[(getattr(spec, name), one) for name, one in given.items() if one is not None],
            resume=resume,
            resume_from=resume_from,
        )
        return self._optimization(course)

    def attack(
        self,
        photo: types.Photo,
        method: str = "pgd",
        *,
        source: int | str | None = None,
        goal: int | str | None = None,
        linear_layers: Sequence[str] = (),
        transfer: bool = False,
        model: str = "",
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "optimizing.AsyncOptimization":
        """A small change of a photo that changes what it is taken for: see Client.attack."""
        spec = _attack.attack_request(
            method,
            source=source,
            goal=goal,
            linear_layers=linear_layers,
            transfer=transfer,
            model=model,
            include_pixels=include_pixels,
            parameters=parameters,
        )
        course = _optimize.Course(
            spec, timeout_s, photos=[(spec.image, photo)], resume=resume, resume_from=resume_from
        )
        return self._optimization(course)

    def universal(
        self,
        photos: "Sequence[types.Photo]",
        *,
        model: str = "",
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "optimizing.AsyncOptimization":
        """One small change for many photos: see Client.universal."""
        spec = _universal.universal_request(
            model=model, include_pixels=include_pixels, parameters=parameters
        )
        course = _optimize.Course(
            spec, timeout_s, photo_set=photos, resume=resume, resume_from=resume_from
        )
        return self._optimization(course)

    def _optimization(self, course: _optimize.Course) -> "optimizing.AsyncOptimization":
        return optimizing.AsyncCourse(self._events(course), optimizing.OptimizeResult)

    def stylize(
        self,
        photo: types.Photo,
        styles: "stylizing.Styles",
        *,
        method: str = "neural",
        mask: "types.Photo | None" = None,
        start_image: "types.Photo | None" = None,
        content_layers: Mapping[str, float] | Sequence[str] | None = None,
        style_layers: Mapping[str, float] | Sequence[str] | None = None,
        model: str = "",
        format: str | None = None,
        include_pixels: bool = False,
        resume: bool = True,
        resume_from: "optimizing.Checkpoint | bytes | None" = None,
        timeout_s: float = 600.0,
        **parameters: Any,
    ) -> "stylizing.AsyncStylization":
        """The photo in the style of paintings: see Client.stylize."""
        spec, photos = _stylize.stylize_request(
            photo,
            styles,
            method=method,
            mask=mask,
            start_image=start_image,
            content_layers=content_layers,
            style_layers=style_layers,
            model=model,
            format=format,
            include_pixels=include_pixels,
            parameters=parameters,
        )
        course = _optimize.Course(
            spec, timeout_s, photos=photos, resume=resume, resume_from=resume_from
        )
        return optimizing.AsyncCourse(self._events(course), stylizing.Stylized)

    async def _events(self, course: _optimize.Course) -> AsyncGenerator[Any, None]:
        """What a job shows, and its result, on however many servers."""
        await asyncio.to_thread(course.read_photos)
        while True:
            stream = self._stream(course.call, course.messages(), course.remaining_s())
            try:
                async with aclosing(stream) as responses:
                    async for response in responses:
                        if (event := course.event(response)) is not None:
                            yield event
                course.end()
                return
            except StatusError as error:
                pause_s = course.pause_s(error)
            await asyncio.sleep(pause_s)
