"""Label tables of other data sets: what is right is read exactly, everything else is refused with row and column."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cityscapes.errors import InputError, MissingInputError
from cityscapes.label_files import COLUMNS, read_label_table, to_csv, to_json
from cityscapes.labels import CITYSCAPES, Label, LabelTable

COMMAND = Path(__file__).parents[2] / "cityscapes" / "label_files.py"
ROWS = [
    "background,0,255,void,false,true,#000000",
    "cat,1,0,animal,true,false,#ff0000",
    "dog,2,0,animal,yes,no,#00ff00",
    "sofa,200,1,thing,0,0,#0000FF",
]


def csv_file(folder: Path, *rows: str, columns: str = ",".join(COLUMNS)) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.mark.parametrize(("write", "name"), [(to_csv, "labels.csv"), (to_json, "labels.JSON")])
def test_the_cityscapes_table_survives_the_way_to_a_file_and_back(tmp_path, write, name):
    (tmp_path / name).write_text(write(CITYSCAPES))
    table = read_label_table(tmp_path / name)
    assert table.labels == CITYSCAPES.labels
    assert table.digest == CITYSCAPES.digest


def test_look_up_tables_follow_from_the_file(tmp_path):
    table = read_label_table(csv_file(tmp_path, *ROWS))
    assert table.labels[1] == Label("cat", 1, 0, "animal", True, False, (255, 0, 0))
    assert table.label_id_to_train_id[[0, 1, 2, 200, 3]].tolist() == [255, 0, 0, 1, 255]
    assert table.train_id_to_label_id[[0, 1, 2, 255]].tolist() == [1, 200, 0, 0]  # of cat and dog, the first
    assert table.label_id_to_color[200].tolist() == [0, 0, 255]
    assert table.train_id_to_color[0].tolist() == [255, 0, 0]
    assert [label.name for label in table.trained] == ["cat", "sofa"]
    assert table.digest != CITYSCAPES.digest


def test_a_spreadsheet_s_byte_order_mark_order_of_columns_and_blank_lines_are_accepted(tmp_path):
    columns = ",".join(reversed(COLUMNS))
    rows = [",".join(reversed(row.split(","))) for row in ROWS]
    path = csv_file(tmp_path, rows[0], "", *rows[1:], columns=columns)
    plain = csv_file(tmp_path / "..", *ROWS)
    assert read_label_table(plain).labels == read_label_table(path).labels
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_label_table(plain).labels == read_label_table(path).labels


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("cat,3,255,void,0,1,#000000", "row 6, column name: 'cat' is a duplicate name"),
        (",3,255,void,0,1,#000000", "row 6, column name: '' is empty"),
        ("bed,1,255,void,0,1,#000000", "row 6, column label_id: 1 is also the id of 'cat'"),
        ("bed,256,255,void,0,1,#000000", "row 6, column label_id: 256 does not fit into a mask"),
        ("bed,1.0,255,void,0,1,#000000", "row 6, column label_id: expected a whole number, found '1.0'"),
        ("bed,3,256,void,0,1,#000000", "row 6, column train_id: 256 is not a train id"),
        ("bed,3,-1,void,0,1,#000000", "row 6, column train_id: -1 is for labels that are not drawn"),
        ("bed,-1,2,void,0,1,#000000", "row 6, column train_id: 2 cannot be trained"),
        ("bed,3,4,void,0,1,#000000", "row 6, column train_id: 4 comes without a 2"),
        ("bed,3,255,,0,1,#000000", "row 6, column category: is empty"),
        ("bed,65,255,void,1,1,#000000", "row 6, column has_instances: the instance ids of label_id 65 would not fit"),
        ("bed,3,255,void,maybe,1,#000000", "row 6, column has_instances: expected true or false, found 'maybe'"),
        ("bed,3,255,void,0,2,#000000", "row 6, column ignored: expected true or false"),
        ("bed,3,255,void,0,1,#00000", "row 6, column color: expected a color such as #804080"),
        ("bed,3,255,void,0,1", "row 6: 6 cells, where row 1 names 7 columns"),
        ('bed,3,255,"void,0,1,#000000', "not valid CSV"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line_with_row_and_column(tmp_path, row, problem):
    path = csv_file(tmp_path, *ROWS, row)
    with pytest.raises(InputError) as caught:
        read_label_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "row 1: expected the columns name,label_id"),
        (b"name;label_id\n", "row 1: expected the columns name,label_id"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b" " * (2**20 + 1), "larger than 1 MB"),
        ((",".join(COLUMNS) + "\n").encode(), "no label has the id 0"),
        ((",".join(COLUMNS) + "\n" + ROWS[1] + "\n").encode(), "row 2, column label_id: no label has the id 0"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(tmp_path, content, problem):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match="labels.csv: ") as caught:
        read_label_table(tmp_path / "labels.csv")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{}", "expected a list of labels"),
        ("[1]", "row 1: expected name, label_id"),
        ('[{"name": "x"}]', "row 1: expected name, label_id"),
        ('[{"name": "x", "name": "y"}]', "duplicate key 'name'"),
        ("[", "not valid JSON at line 1"),
        (json.dumps([dict(zip(COLUMNS, ["x", True, 0, "v", True, True, "#000000"], strict=True))]), "column label_id"),
        (json.dumps([dict(zip(COLUMNS, [3, 0, 0, "v", True, True, "#000000"], strict=True))]), "column name"),
    ],
)
def test_json_is_checked_alike(tmp_path, content, problem):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InputError, match="labels.json: ") as caught:
        read_label_table(tmp_path / "labels.json")
    assert problem in str(caught.value)


def test_an_absent_table_is_missing_input(tmp_path):
    with pytest.raises(MissingInputError, match="no such label table"):
        read_label_table(tmp_path / "labels.csv")


def test_a_table_made_in_python_is_checked_too_and_travels_without_its_look_up_tables():
    with pytest.raises(InputError, match="label table: row 2, column name: 'road' is a duplicate name"):
        LabelTable((CITYSCAPES.by_name["road"]._replace(label_id=0),) * 2)
    assert len(pickle.dumps(CITYSCAPES)) < 4000
    copied = pickle.loads(pickle.dumps(CITYSCAPES))
    np.testing.assert_array_equal(copied.label_id_to_color, CITYSCAPES.label_id_to_color)
    assert not copied.label_id_to_color.flags.writeable


def test_the_command_writes_and_checks_tables(tmp_path):
    def run(*arguments: object) -> subprocess.CompletedProcess:
        arguments = [sys.executable, COMMAND.name, *map(str, arguments)]
        return subprocess.run(
            arguments, cwd=COMMAND.parent, env=os.environ, capture_output=True, text=True, check=False
        )

    assert run().stdout == to_csv(CITYSCAPES)
    (tmp_path / "labels.csv").write_text(to_csv(CITYSCAPES))
    assert run(tmp_path / "labels.csv", "--json").stdout == to_json(CITYSCAPES)
    done = run(csv_file(tmp_path, *ROWS, "cat,3,255,void,0,1,#000000"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
