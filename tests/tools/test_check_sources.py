# SPDX-License-Identifier: Apache-2.0
"""The countable part of the house style, on trees that break it once."""

import check_sources
import pytest


def findings(root):
    return [str(finding) for finding in check_sources.check(root)]


def one_finding(root):
    found = findings(root)
    assert len(found) == 1, found
    return found[0]


def function(lines, signature="int f() {"):
    """A function of that many lines, its braces included."""
    return signature + "\n" + "  g();\n" * (lines - 2) + "}\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/core/a.cpp", "int x;\n"),
        ("cmake/a.cmake", ""),
        ("tools/run", "#!/bin/sh\necho\n"),
        ("CMakeLists.txt", "project(x)\n"),
    ],
)
def test_a_missing_licence_line_is_found(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert f"{name}:{2 if '#!' in text else 1}: expected the line 'SPDX" in one_finding(
        tmp_path
    )


def test_the_licence_line_may_follow_a_shebang(tmp_path):
    (tmp_path / "run").write_text(
        "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n"
    )
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "LICENSE").write_text("Apache")
    assert findings(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "limit", "head"),
    [("src/core/a.cpp", 500, ""), ("src/core/a.h", 150, "#pragma once\n")],
)
def test_files_have_a_longest_length(tree, name, limit, head):
    own = 1 + head.count("\n")
    assert findings(tree({name: head + "\n" * (limit - own)})) == []
    found = one_finding(tree({name: head + "\n" * (limit - own + 1)}))
    assert found == f"{name}:{limit + 1}: at most {limit} lines, found {limit + 1}: split it"


@pytest.mark.parametrize("name", ["utils", "string_util", "test_helpers", "misc"])
def test_names_that_say_nothing_are_found(tree, name):
    assert "says nothing" in one_finding(tree({f"src/core/{name}.cpp": ""}))


def test_names_that_only_sound_like_it_pass(tree):
    assert findings(tree({"src/core/utility_curve.cpp": ""})) == []


def test_a_namespace_that_says_nothing_is_found(tree):
    found = one_finding(tree({"src/core/a.cpp": "namespace fettle::utils {\n}\n"}))
    assert "namespace 'fettle::utils'" in found


def test_headers_are_guarded_and_keep_namespaces_to_themselves(tree):
    assert "#pragma once" in one_finding(tree({"src/core/a.h": "int f();\n"}))
    tree({"src/core/a.h": "#pragma once\nusing namespace std;\n"})
    assert "src/core/a.h:3: 'using namespace'" in one_finding(tree({}))


def test_an_inl_header_is_read_more_than_once(tree):
    assert findings(tree({"kernels/cpu/vec-inl.h": "int f();\n"})) == []


@pytest.mark.parametrize(
    "signature",
    [
        "int f() {",
        "template <typename T>\nint f(\n    int a,\n    const T& b) {",
        'TEST_CASE("a, b; c") {',
        "Class::Class(int a)\n    : a_(a), b_{} {",
    ],
)
def test_functions_have_a_longest_length(tree, signature):
    head = "namespace x {\nint before = 1;\n"
    extra = signature.count("\n")
    fits, long = (
        {"src/core/a.cpp": head + function(n - extra, signature) + "}  // x\n"}
        for n in (59, 60)
    )
    assert findings(tree(fits)) == []
    found = one_finding(tree(long))
    assert found.startswith("src/core/a.cpp:4: a function stays below 60 lines, found 60")


@pytest.mark.parametrize(
    "opening", ["class A {", "struct A final : B {", "const int kTable[] = {"]
)
def test_types_and_tables_may_be_longer(tree, opening):
    text = opening + "\n" + "  1,\n" * 80 + "};\n"
    assert findings(tree({"src/core/a.cpp": text})) == []


def test_python_functions_have_a_longest_length(tree):
    text = "def f():\n" + "    g()\n" * 59
    assert "found 60" in one_finding(tree({"tools/a.py": text}))


@pytest.mark.parametrize(
    "code", ["std::cout << 1;", "std::exit(1);", "exit(1);", 'printf("x");']
)
def test_only_the_command_line_prints_or_exits(tree, code):
    text = f"void f() {{\n  {code}\n}}\n"
    assert "src/io/a.cpp:3: '" in one_finding(tree({"src/io/a.cpp": text}))
    tree({"src/io/a.cpp": "", "src/cli/a.cpp": text, "tests/a.cpp": text})
    assert findings(tree({})) == []


def test_what_only_looks_like_output_passes(tree):
    text = "void f() {\n  snprintf(b, 1, s);  // printf(x)\n  on_exit(1);\n}\n"
    assert findings(tree({"src/io/a.cpp": text})) == []
