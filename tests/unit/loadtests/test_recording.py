"""The file of a run's requests: written as they end, read in the order of their starts."""

import csv

from trierarch.simulation.traces import read_trace
from trierarch_loadtests.reporting.recording import COLUMNS, RecordedRequest, Recording


def request(start, output_tokens):
    return RecordedRequest(start, 10, output_tokens, "flex", "chat, long", "main", "complete")


def rows(path):
    with path.open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == list(COLUMNS)
    return [(float(row[0]), int(row[2])) for row in found]


def test_rows_are_in_the_file_before_the_run_is_over(tmp_path):
    recording = Recording(tmp_path / "new")
    recording.add([request(2.0, 1), request(1.0, 2)])
    assert rows(recording.path) == [(2.0, 1), (1.0, 2)]
    recording.add([])
    recording.add([request(0.5, 3)])
    assert rows(recording.path) == [(2.0, 1), (1.0, 2), (0.5, 3)]
    recording.close()


def test_the_closed_file_is_in_order_of_planned_starts(tmp_path):
    recording = Recording(tmp_path)
    recording.add([request(2.0, 1), request(1.0, 22)])
    recording.add([request(10.0, 333), request(1.0, 4)])
    recording.close()
    assert rows(recording.path) == [(1.0, 22), (1.0, 4), (2.0, 1), (10.0, 333)]
    assert [path.name for path in tmp_path.iterdir()] == ["requests.csv"]
    assert list(read_trace(recording.path).output_tokens) == [22, 4, 1, 333]


def test_a_run_without_requests_leaves_a_header(tmp_path):
    recording = Recording(tmp_path)
    recording.close()
    assert rows(recording.path) == []
