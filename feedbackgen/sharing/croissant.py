"""Croissant 1.0 metadata of a bundle: JSON-LD that names its files and the columns of its tables."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feedbackgen.sharing.manifest import FileEntry

if TYPE_CHECKING:
    import pyarrow

NAME = "croissant.json"
# https://docs.mlcommons.org/croissant/docs/croissant-spec.html
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FORMATS = {".parquet": "application/x-parquet", ".hdf5": "application/x-hdf5", ".json": "application/json"}
COLUMNS = {
    "episode": "Minari episode id",
    "return": "sum of the episode's rewards",
    "cost": "sum of the episode's costs",
    "steps": "steps of the episode",
    "seed": "seed of the episode's reset",
    "behaviour_policy": "policy that played the episode",
    "start": "first step of the segment",
    "length": "steps of the segment",
    "first_episode": "Minari episode id of the first segment",
    "first_start": "first step of the first segment",
    "first_length": "steps of the first segment",
    "second_episode": "Minari episode id of the second segment",
    "second_start": "first step of the second segment",
    "second_length": "steps of the second segment",
    "annotator": "who gave the label",
}
LABELS = {
    "preferences": "probability that the second segment is preferred: 1, 0, or 0.5 where they are equal",
    "safety": "+1 where the segment is safe, -1 where it is unsafe",
}


def croissant_text(
    name: str,
    *,
    description: str,
    licence: str,
    citation: str,
    authors: tuple[str, ...],
    url: str,
    version: str,
    files: Mapping[str, FileEntry],
    tables: "Mapping[str, pyarrow.Table]",
) -> str:
    """The metadata as JSON-LD; paths are relative to its own folder.

    Args:
        files: path -> size and hash of the files to be named.
        tables: path -> table; each becomes a record set.
    """
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{entry.size} B",
            "encodingFormat": FORMATS[path[path.rindex(".") :]],
            "sha256": entry.sha256,
        }
        for path, entry in sorted(files.items())
    ]
    records = [_record_set(path, table) for path, table in tables.items() if len(table)]
    content: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": description,
        "license": licence,
        "url": url,
        "version": version,
        "isLiveDataset": False,
        "distribution": objects,
        "recordSet": records,
    }
    if citation:
        content["citeAs"] = citation
    if authors:
        content["creator"] = [{"@type": "sc:Person", "name": author} for author in authors]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _record_set(path: str, table: "pyarrow.Table") -> dict[str, Any]:
    name = path.removeprefix("labels/").removesuffix(".parquet")
    kind = name.rpartition("-")[2]
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column.name}",
            "name": column.name,
            "description": LABELS[kind] if column.name == "label" else COLUMNS[column.name],
            "dataType": _data_type(str(column.type)),
            "source": {"fileObject": {"@id": path}, "extract": {"column": column.name}},
        }
        for column in table.schema
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _data_type(arrow: str) -> str:
    if arrow in ("string", "large_string"):
        return "sc:Text"
    return "sc:Float" if arrow in ("float", "double") else "sc:Integer"
