"""Calls that make images, step by step, and show them on the way."""

import functools
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from . import (
    _attack,
    _optimize,
    _stylize,
    _universal,
    _video,
    optimizing,
    stylizing,
    types,
    video,
)
from ._connection import Connection
from .errors import StatusError


class Making(Connection):
    """The part of Client that makes images."""

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
    ) -> "optimizing.Optimization":
        """Images made for what the network is after: a class, a neuron, a code, a dream.

        Args:
            objectives: A class by index or label, a Neuron, Direction, Code, Energy, Guide or
                Diversity; or a list of several of them, each in a tuple with its weight if that is
                not 1: [("goldfish", 2), (1, -0.5)]. See Objectives.
            photo: Whose Code it is, and where start="photo" starts; see Photo.
            guide: Whose features Guide wants.
            score: Of classes: "logit" (the default), "log_probability" or "probability".
            model: Its name; the server's default model when empty.
            format: Of the images: "png" (the default) or "jpeg".
            include_pixels: Whether they come as numbers, too.
            resume: Whether it goes on by itself, from the last checkpoint and within the deadline,
                when a server leaves on the way: checkpoint_every is 50 steps then, unless it is
                given, or none where they are too much for the server. It is started over where
                that checkpoint is refused. The result's notes say either.
            resume_from: A checkpoint to go on from, of the same arguments.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the contract's Ascend: preset (which all others follow from:
                "olah", which a Code has without transformations; "mordvintsev" for Energy and
                Guide), step_count, height_px, width_px, seed, restart_count, preview_every,
                tv_penalty and so on. An enum is its short lower-case name.

        Returns:
            Its events, one by one, and its result. A full queue, and every other error of the
            server, is met at the first step.

        Raises:
            PhotoNotFound: There is no such file.
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
    ) -> "optimizing.Optimization":
        """A small change of a photo that changes what the network takes it for.

        Args:
            photo: See Photo; not one that is preprocessed already.
            method: "fgsm", "bim", "pgd", "deep_fool" or "carlini_wagner".
            source: The class that it is to be taken for no longer, by index or label; the one that
                it is taken for when None.
            goal: The class that it is to be taken for; any other when None.
            linear_layers: Layers at which the effect of the change is predicted.
            transfer: Whether the result is scored on all models of the server.
            model: Its name; the server's default model when empty.
            include_pixels: Whether the images come as they were before they were rounded, too.
            resume: As of optimize.
            resume_from: Likewise.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the method in the contract, such as epsilon, norm ("linf" or
                "l2"), step_count, step_size, restart_count and seed of "pgd"; and progress_every,
                preview_every, checkpoint_every and checkpoint_precision ("full" or "half", which
                is not to the bit).

        Returns:
            Its events, one by one, and its result: see optimize. images[k].adversarial tells how
            an image fares.

        Raises:
            PhotoNotFound: There is no such file.
        """
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
    ) -> "optimizing.Optimization":
        """One small change that alters what the network takes most of many photos for.

        Args:
            photos: 1 to 1024; see Photo; none that is preprocessed already.
            model: Its name; the server's default model when empty.
            include_pixels: Whether images come as numbers, too.
            resume: As of optimize.
            resume_from: Likewise.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of Universal in the contract, such as epsilon, norm ("linf" or
                "l2"), pass_count, fooling_rate and seed; and progress_every, preview_every and
                checkpoint_every, in photos, and checkpoint_precision.

        Returns:
            Its events, one by one, and its result: see optimize. A progress's score is the
            fooling rate so far; result().universal has the perturbation.

        Raises:
            PhotoNotFound: There is no such file.
        """
        spec = _universal.universal_request(
            model=model, include_pixels=include_pixels, parameters=parameters
        )
        course = _optimize.Course(
            spec, timeout_s, photo_set=photos, resume=resume, resume_from=resume_from
        )
        return self._optimization(course)

    def _optimization(self, course: _optimize.Course) -> "optimizing.Optimization":
        course.read_photos()
        return optimizing.Course(self._events(course), optimizing.OptimizeResult)

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
    ) -> "stylizing.Stylization":
        """The photo in the style of paintings.

        By optimization (Gatys, Ecker and Bethge 2015), or in one pass of a network that was trained
        for it (Johnson 2016, Dumoulin 2017, Ghiasi 2017).

        Args:
            photo: The content; see Photo.
            styles: A painting, or several, each with a weight if it is not 1:
                ["waves.jpg", ("night.jpg", 2.0)]. With method "fast" also names of styles, which
                list_styles has: ["7", ("12", 0.5)].
            method: "neural", by optimization, or "fast", in one pass.
            mask: Where the style is: white for all of it, black for none; as large as the photo.
            start_image: What it starts from, instead of the photo.
            content_layers: Names of layers, or their weights by name; by architecture when None.
            style_layers: Likewise.
            model: Its name; the server's default model when empty.
            format: Of the image: "png" (the default) or "jpeg".
            include_pixels: Whether it comes as numbers, too.
            resume: As of optimize.
            resume_from: A checkpoint to go on from, of the same arguments.
            timeout_s: The deadline of all of it in seconds.
            **parameters: Those of the contract's Neural: side_px, step_count, style_weight,
                content_weight, tv_weight, scale_count, update, original_colors, pooling and so
                on. Or of its Fast: strength, side_px, original_colors, bucket_size. An enum is
                its short lower-case name.

        Returns:
            Its events, one by one, and its result: see optimize.

        Raises:
            PhotoNotFound: There is no such file.
        """
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
            resume_from=resume_from,
            parameters=parameters,
        )
        course = _optimize.Course(
            spec, timeout_s, photos=photos, resume=resume, resume_from=resume_from
        )
        course.read_photos()
        return optimizing.Course(self._events(course), stylizing.Stylized)

    def stylize_video(
        self,
        frames: "video.Frames",
        styles: "stylizing.Styles",
        *,
        keep_all: bool = False,
        smoothing: float | None = None,
        format: str | None = None,
        quality: int | None = None,
        frame_timeout_ms: float | None = None,
        timeout_s: float | None = None,
        **parameters: Any,
    ) -> "video.StylizedVideo":
        """A video in the style of paintings, frame by frame, in order and as they are made.

        Args:
            frames: Of one size; each an array or a file's bytes, or any other Photo, or
                (Photo, its time in milliseconds), which comes back. They are taken from another
                thread, at the pace at which they can be sent.
            styles: As of stylize with method "fast".
            keep_all: Whether each frame is waited for; else those that come faster than the
                server can paint are dropped, the oldest that waits first, and counted.
            smoothing: How much of the result before is kept where the frames are alike: 0, the
                default, to 0.95.
            format: In which frames come back: "jpeg" (the default) or "rgb".
            quality: Of JPEG: 1 to 100; 90 by default.
            frame_timeout_ms: How long a frame may take once it waits no more; 30000 by default.
            timeout_s: The deadline of the whole stream in seconds; none when None.
            **parameters: strength, side_px (the frames' own by default), original_colors,
                bucket_size.

        Returns:
            The frames, one by one, and the summary of them as its result: see optimize. A frame
            that failed says why in its error; the others go on. Where the server ends the stream
            with an error, its last is the summary.

        Raises:
            PhotoNotFound: There is no such file of a style.
        """
        spec = _video.video_request(
            styles,
            parameters,
            overflow="keep_all" if keep_all else None,
            smoothing=smoothing,
            format=format,
            quality=quality,
            frame_timeout_ms=frame_timeout_ms,
        )
        call = functools.partial(
            self._stub.StylizeVideo, timeout=timeout_s, metadata=self._metadata
        )
        shown = _video.stream(call, spec, frames)
        return optimizing.Course(shown, video.VideoSummary)

    def _events(self, course: _optimize.Course) -> Generator[Any, None, None]:
        """What a job shows, and its result, on however many servers."""
        while True:
            stream = self._stream(course.call, course.messages(), course.remaining_s())
            try:
                with closing(stream) as responses:
                    for response in responses:
                        if (event := course.event(response)) is not None:
                            yield event
                course.end()
                return
            except StatusError as error:
                pause_s = course.pause_s(error)
            time.sleep(pause_s)
