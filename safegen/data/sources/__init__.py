"""Where images come from: one file per kind of source, all behind one Protocol."""

from safegen.data.sources.folder import FolderSource
from safegen.data.sources.hugging_face import HuggingFaceSource
from safegen.data.sources.object_prefix import ObjectPrefixSource
from safegen.data.sources.parquet_shards import ParquetSource
from safegen.data.sources.source import Source, SourceItem
from safegen.data.sources.webdataset_shards import WebDatasetSource

__all__ = [
    "FolderSource",
    "HuggingFaceSource",
    "ObjectPrefixSource",
    "ParquetSource",
    "Source",
    "SourceItem",
    "WebDatasetSource",
]
