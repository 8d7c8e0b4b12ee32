"""Calls that look inside a network."""

from collections.abc import Sequence

from . import _inspect, types
from ._connection import Connection


class Inspecting(Connection):
    """The part of Client that looks inside networks."""

    def filters(
        self,
        layer: str,
        *,
        input_channel: int | None = None,
        tile_count: int | None = None,
        tile_px: int | None = None,
        scale: str | None = None,
        format: str | None = None,
        include_tensor: bool = False,
        model: str = "",
        timeout_s: float | None = None,
    ) -> types.LayerSheet:
        """A layer's weights, as they are served: normalizations that are folded in are in them.

        Zero is the middle grey of every tile. Filters of three channels of the first layer are
        in colour; others show one of their input channels, and those of dense layers and of
        1 × 1 a row of all their inputs.

        Args:
            layer: The name of a convolution or a dense layer, as get_model lists it.
            input_channel: Which is drawn, from 0, in grey; the first, or a colour's three, when
                None.
            tile_count: Tiles at most, those of the largest norm first: 1 to 4096; 256 by default.
            tile_px: The longer side of a tile, 4 to 512; as it is, times a whole number where
                that makes at least 32, by default.
            scale: "each" tile by its own extremes (the default), or all by one "shared".
            format: "png" (the default) or "jpeg".
            include_tensor: Whether to return the numbers, too.
            model: Its name; the server's default model when empty.
            timeout_s: This call's deadline in seconds; the client's by default.
        """
        request = _inspect.inspect_request(
            "filters",
            model=model,
            layer=layer,
            input_channel=input_channel,
            sheet=_inspect.sheet(tile_count, tile_px, scale, format, include_tensor),
        )
        return _inspect.layer_sheet(self._call("Inspect", request, timeout_s))

    def activations(
        self,
        photo: types.Photo,
        layer: str,
        *,
        tile_count: int | None = None,
        tile_px: int | None = None,
        scale: str | None = None,
        format: str | None = None,
        include_tensor: bool = False,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerSheet:
        """What a layer makes of a photo: its channels, those of the largest mean first.

        Args:
            photo: See Photo.
            layer: The name of a layer with maps, patches or channels, as get_model lists it.
            tile_count: See filters, for this and what follows. Channels of one number share a
                scale by default.
            tile_px: The longer side of a tile.
            scale: "each" or "shared".
            format: "png" or "jpeg".
            include_tensor: Whether to return the numbers, too.
            model: Its name.
            bucket_size: The batch size to run at: fixes the result's bits.
            timeout_s: This call's deadline in seconds.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _inspect.inspect_request(
            "activations",
            photo,
            model=model,
            bucket_size=bucket_size,
            layer=layer,
            sheet=_inspect.sheet(tile_count, tile_px, scale, format, include_tensor),
        )
        return _inspect.layer_sheet(self._call("Inspect", request, timeout_s))

    def gradients(
        self,
        photo: types.Photo,
        layer: str,
        *,
        target: "types.Target | None" = None,
        against: int | str | None = None,
        score: str | None = None,
        tile_count: int | None = None,
        tile_px: int | None = None,
        scale: str | None = None,
        format: str | None = None,
        include_tensor: bool = False,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerSheet:
        """How a score changes with a layer's activation: channels of the largest magnitude first.

        Zero is the middle grey of every tile; all tiles have one scale by default.

        Args:
            photo: See Photo.
            layer: See activations; not behind the target.
            target: See explain; the top prediction when None.
            against: A class by index or label whose score is subtracted.
            score: "logit" (the default), "log_probability" or "probability".
            tile_count: See filters, for this and what follows.
            tile_px: The longer side of a tile.
            scale: "each" or "shared" (the default).
            format: "png" or "jpeg".
            include_tensor: Whether to return the numbers, too.
            model: Its name.
            bucket_size: The batch size to run at: fixes the result's bits.
            timeout_s: This call's deadline in seconds.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _inspect.inspect_request(
            "gradients",
            photo,
            model=model,
            bucket_size=bucket_size,
            target=target,
            against=against,
            score=score,
            layer=layer,
            sheet=_inspect.sheet(tile_count, tile_px, scale, format, include_tensor),
        )
        return _inspect.layer_sheet(self._call("Inspect", request, timeout_s))

    def walk(
        self,
        photo: types.Photo,
        *,
        top_k: int | None = None,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerWalk:
        """What every layer makes of a photo, in numbers, with the best classes beside it.

        Args:
            photo: See Photo.
            top_k: How many classes to return, 1 to all; 5 by default.
            model: Its name; the server's default model when empty.
            bucket_size: The batch size to run at: fixes the result's bits.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _inspect.inspect_request(
            "walk", photo, model=model, bucket_size=bucket_size, top_k=top_k
        )
        return _inspect.layer_walk(self._call("Inspect", request, timeout_s))

    def column(
        self,
        photo: types.Photo,
        x_px: int,
        y_px: int,
        *,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.LayerColumn:
        """What all layers with maps hold where they look at a pixel.

        Args:
            photo: See Photo.
            x_px: The column of a pixel of the network's input, from 0, left first.
            y_px: Its row, from 0, top first.
            model: Its name; the server's default model when empty.
            bucket_size: The batch size to run at: fixes the result's bits.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            PhotoNotFound: There is no such file.
        """
        request = _inspect.inspect_request(
            "column", photo, model=model, bucket_size=bucket_size, x_px=x_px, y_px=y_px
        )
        return _inspect.layer_column(self._call("Inspect", request, timeout_s))

    def embed(
        self,
        photos: Sequence[types.Photo],
        *,
        layer: str = "",
        pooling: str | None = None,
        data_type: str | None = None,
        model: str = "",
        bucket_size: int | None = None,
        timeout_s: float | None = None,
    ) -> types.Embedding:
        """The codes of photos: what a layer makes of each, as one row of numbers.

        Args:
            photos: 1 to 64; see Photo.
            layer: Its name, as get_model lists it; what the classifier gets when empty, or the
                last layer with maps where there is no classifier.
            pooling: Of layers with places: "mean" (the default), "max" or "flatten".
            data_type: "float32" (the default) or "float16".
            model: Its name; the server's default model when empty.
            bucket_size: The batch size to run at: fixes the result's bits.
            timeout_s: This call's deadline in seconds; the client's by default.

        Raises:
            PhotoNotFound: There is no such file; nothing was sent.
        """
        request = _inspect.embed_request(
            photos,
            layer=layer,
            pooling=pooling,
            data_type=data_type,
            model=model,
            bucket_size=bucket_size,
        )
        return _inspect.embedding(self._call("Embed", request, timeout_s))
