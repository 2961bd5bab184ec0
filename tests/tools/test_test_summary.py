# SPDX-License-Identifier: Apache-2.0
"""The sum of test reports, on reports with a known number of everything."""

import pytest
import test_summary

CATCH = """<testsuites><testsuite>
  <testcase classname="model" name="a" status="run"/>
  <testcase classname="model" name="b" status="run">
    <failure message="x == 1" type="REQUIRE">
FAILED:
  REQUIRE( x == 1 )
    </failure></testcase>
  <testcase classname="model" name="c" status="run">
    <system-out>skipped: no GPU: none here</system-out></testcase>
</testsuite></testsuites>"""
PYTEST = """<testsuites><testsuite>
  <testcase classname="t" name="a"/>
  <testcase classname="t" name="b"><skipped message="not here"/></testcase>
  <testcase classname="t" name="c"><error message="broke"/></testcase>
</testsuite></testsuites>"""
GREEN = '<testsuite><testcase classname="t" name="a"/></testsuite>'


@pytest.fixture
def report(tmp_path):
    def write(text):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.xml"
        path.write_text(text)
        return str(path)

    return write


def test_reports_are_added_up(report, capsys):
    status = test_summary.main(["c++", "8", report(CATCH), "py", "1", report(PYTEST)])
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    assert lines[-1] == "2 passed, 2 failed, 2 skipped"
    assert lines[:-1] == [
        "FAILED c++: model b", "  FAILED:", "    REQUIRE( x == 1 )", "FAILED py: t c"]


def test_all_green_is_success(report, capsys):
    assert test_summary.main(["lint", "0", "-", "py", "0", report(GREEN)]) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed, 0 skipped\n"


def test_a_folder_of_reports_is_one_step(report, tmp_path, capsys):
    report(PYTEST)
    report(GREEN)
    assert test_summary.main(["asan", "1", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED asan: t c", "2 passed, 1 failed, 1 skipped"]


def test_a_step_that_fails_by_itself_counts(report, tmp_path, capsys):
    missing = str(tmp_path / "missing.xml")
    steps = ["lint", "1", "-", "crash", "139", missing, "odd", "1", report(GREEN)]
    assert test_summary.main(steps) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 3 failed, 0 skipped"
    assert "FAILED crash: exit status 139" in lines


def test_a_program_that_ended_before_its_report_counts(report, capsys):
    assert test_summary.main(["asan", "8", report(CATCH[:200])]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED asan: exit status 8", "0 passed, 1 failed, 0 skipped"]


def test_a_gpu_test_may_not_skip_when_a_device_is_asked_for(
    report, capsys, monkeypatch
):
    monkeypatch.setenv("FETTLE_TEST_DEVICE", "cuda")
    test_summary.main(["c++", "0", report(CATCH)])
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 2 failed, 0 skipped"
