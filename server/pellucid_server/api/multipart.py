"""Bodies of forms in their parts."""

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..errors import InvalidArgument


@dataclass
class Part:
    name: str
    is_file: bool
    data: bytearray


def split(body: bytes, boundary: bytes, most_parts: int) -> list[Part]:
    """The parts of a form, from memory to memory."""
    parts: list[Part] = []
    headers: list[tuple[bytearray, bytearray]] = []
    ended = False

    def on_part_begin() -> None:
        if len(parts) == most_parts:
            raise InvalidArgument(f"the form has more than {most_parts} fields")
        headers.clear()

    def on_header_begin() -> None:
        headers.append((bytearray(), bytearray()))

    def on_header_field(data: bytes, start: int, end: int) -> None:
        headers[-1][0].extend(data[start:end])

    def on_header_value(data: bytes, start: int, end: int) -> None:
        headers[-1][1].extend(data[start:end])

    def on_headers_finished() -> None:
        dispositions = [v for name, v in headers if name.lower() == b"content-disposition"]
        _, options = parse_options_header(bytes(dispositions[0]) if dispositions else None)
        if b"name" not in options:
            raise InvalidArgument("a part of the form has no name")
        name = options[b"name"].decode(errors="backslashreplace")
        parts.append(Part(name, b"filename" in options, bytearray()))

    def on_part_data(data: bytes, start: int, end: int) -> None:
        parts[-1].data.extend(data[start:end])

    def on_end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": on_part_begin,
                "on_header_begin": on_header_begin,
                "on_header_field": on_header_field,
                "on_header_value": on_header_value,
                "on_headers_finished": on_headers_finished,
                "on_part_data": on_part_data,
                "on_end": on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise InvalidArgument("the body is not a well-formed form") from None
    if not ended:
        raise InvalidArgument("the form ends before its last boundary")
    return parts
