"""What a commit of a model or dataset repository says of itself: stored, served and sent as JSON."""

import msgspec

from hooks.data_files import Column, Split
from hooks.formats.parsed import Finding
from hooks.lineage import BaseModel


class EvalResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measurement that the card reports."""

    task: str
    dataset: str
    metric: str
    value: str | int | float | bool | None
    dataset_name: str | None = None
    config: str | None = None
    split: str | None = None
    source: str | None = None


class Summary(msgspec.Struct, frozen=True):
    """Everything that is known, or nothing: None and empty where no file says it.

    Attributes:
        title: of the card. task: what a model is for, the first of `tasks`.
        library: what loads it. licenses: identifiers; license_name: what `other` is.
        parameters: of the model, however many files and formats it lies in; of adapters only in
            `adapter_parameters`. parameters_by_dtype: with the names of dtypes that the files use.
        dtypes: the most frequent first. quantisation: of the weights that were counted; quantisations: of all
            GGUF files. context_length: in tokens.
        base_models: what it was made from. datasets: what it was trained with.
        metrics: names. eval_results: the first hundred.
        splits, rows, columns: of a dataset. rows_exact: whether all rows were counted and none estimated.
        findings: about several files together; those of one file are with the file.
    """

    title: str | None = None
    task: str | None = None
    tasks: tuple[str, ...] = ()
    library: str | None = None
    licenses: tuple[str, ...] = ()
    license_name: str | None = None
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    parameters: int | None = None
    parameters_by_dtype: dict[str, int] = {}
    adapter_parameters: int | None = None
    dtypes: tuple[str, ...] = ()
    quantisation: str | None = None
    quantisations: tuple[str, ...] = ()
    context_length: int | None = None
    base_models: tuple[BaseModel, ...] = ()
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    eval_results: tuple[EvalResult, ...] = ()
    size_categories: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()
    rows: int | None = None
    rows_exact: bool = False
    columns: tuple[Column, ...] = ()
    findings: tuple[Finding, ...] = ()
