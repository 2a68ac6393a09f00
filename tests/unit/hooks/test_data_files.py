from pathlib import Path

import pytest

from hooks.summary import Column, Split
from tests.support.cards import DATASET
from tests.support.dataset_files import csv, dataset, json_lines, parquet
from tests.support.summaries import card, data, model, write


def test_rows_of_a_dataset_with_configurations(tmp_path: Path) -> None:
    table = dataset(10)
    for path, rows in (("plain_text/train-0.parquet", 10), ("plain_text/validation-0.parquet", 4)):
        write(tmp_path / path, parquet(table.slice(0, rows)))
    write(tmp_path / "plain_text/train-copy.csv", csv(table))
    write(tmp_path / "other.csv", csv(table))
    write(tmp_path / "README.md", DATASET)
    summary = data(tmp_path)
    assert summary.splits == (
        Split("plain_text", "train", 2, 20),
        Split("plain_text", "validation", 1, 4),
    )
    assert (summary.rows, summary.rows_exact) == (24, True)
    assert summary.columns[0] == Column("id", "INT64")
    assert len({column.name for column in summary.columns}) == len(summary.columns)
    assert (summary.task, summary.title) == ("question-answering", "Dataset Card for SQuAD")


@pytest.mark.parametrize(
    ("path", "config", "split"),
    [
        ("train.csv", "default", "train"),
        ("data/train-00000-of-00001.csv", "default", "train"),
        ("data/test.csv", "default", "test"),
        ("dev.csv", "default", "validation"),
        ("en/valid.csv", "en", "validation"),
        ("en/test/part-1.csv", "en", "test"),
        ("contest.csv", "default", "train"),
        ("a/b/x.csv", "a/b", "train"),
    ],
)
def test_subset_and_split_are_guessed_by_path(tmp_path: Path, path: str, config: str, split: str) -> None:
    write(tmp_path / path, "a,b\n1,2\n")
    assert data(tmp_path).splits == (Split(config, split, 1, 1),)


def test_rows_of_the_same_split_in_several_formats_are_counted_once(tmp_path: Path) -> None:
    table = dataset(7)
    write(tmp_path / "train.csv", csv(table))
    write(tmp_path / "train.jsonl", json_lines(table))
    write(tmp_path / "train.parquet", parquet(table))
    write(tmp_path / "test.csv", csv(table))
    assert data(tmp_path).splits == (Split("default", "test", 1, 7), Split("default", "train", 1, 7))
    assert data(tmp_path).rows == 14


def test_rows_of_files_in_two_subsets_are_counted_once(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x\n1\n")
    card(
        tmp_path,
        "configs:\n- {config_name: one, data_files: a.csv}\n- {config_name: two, data_files: '*.csv'}",
    )
    summary = data(tmp_path)
    assert [split.config for split in summary.splits] == ["one", "two"]
    assert summary.rows == 1


def test_stars_do_not_cross_directories(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x\n1\n")
    write(tmp_path / "b/c/d.csv", "x\n1\n2\n")
    card(tmp_path, "configs:\n- {config_name: flat, data_files: '*.csv'}")
    assert data(tmp_path).rows == 1
    card(tmp_path, "configs:\n- {config_name: deep, data_files: '**/*.csv'}")
    assert data(tmp_path).rows == 2


def test_rows_of_models_are_not_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "a\n1\n")
    assert model(tmp_path).rows is None
