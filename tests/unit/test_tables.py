from aurea.tables import columns


def test_cells_are_padded_to_their_column_and_lines_end_with_their_text() -> None:
    rows = [("version", "role", "workers"), ("1.0", "default", "2/2"), ("10.0", "", "")]
    assert columns(rows) == [
        "version  role     workers",
        "1.0      default  2/2",
        "10.0",
    ]


def test_numbers_stay_as_they_are_written() -> None:
    assert columns([("a", "1.50"), ("b", "1e3"), ("", "007")]) == ["a  1.50", "b  1e3", "   007"]


def test_no_rows_are_no_lines() -> None:
    assert columns([]) == []
