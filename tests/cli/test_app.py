"""The command itself: help, version, unknown words, and the packages that it needs."""

import subprocess
import sys

import pytest

import vdiff_kernels
from vdiff_kernels import cli


def test_version(vdiff):
    result = vdiff("--version")
    assert (result.exit_code, result.stdout) == (0, f"vdiff_kernels {vdiff_kernels.__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=str)
def test_help_names_the_commands_and_a_first_step(vdiff, arguments):
    result = vdiff(*arguments)
    assert result.exit_code == 0 and result.stderr == ""
    for text in ("sample  ", "train  ", 'vdiff sample "a seven moving left" -o seven.gif'):
        assert text in result.stdout


@pytest.mark.parametrize("command", ["sample", "train"])
def test_help_of_a_command_shows_defaults(vdiff, command):
    text = " ".join(vdiff(command, "--help").stdout.split())
    assert ("25" if command == "sample" else "[default: 32,64,128]") in text and "the fastest here" in text


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["smaple"], "vdiff: No such command 'smaple'"),
        (["--weights"], "vdiff: No such option: --weights"),
        (["sample", "--stpes", "3"], "vdiff sample: No such option: --stpes"),
        (["sample", "a seven"], "vdiff sample: Missing option '--output' / '-o'"),
        (["sample", "-o", "a.gif"], "vdiff sample: Missing argument 'PROMPT'"),
        (["sample", "a", "seven", "-o", "a.gif"], "vdiff sample: Got unexpected extra argument"),
        (["sample", "--two\nlines"], "vdiff sample: No such option: --two"),
        (["train"], "vdiff train: Missing argument 'FOLDER'"),
    ],
    ids=str,
)
def test_what_is_no_command_line(refused, arguments, line):
    assert refused(*arguments).startswith(line)


def test_a_refusal_is_one_line_whatever_it_quotes(refused, monkeypatch):
    def refuse(path):
        raise ValueError("one\n  two")

    monkeypatch.setattr(vdiff_kernels.media, "check_output", refuse)
    assert refused("sample", "a seven", "-o", "a.gif") == "vdiff: --output: one two"


def test_an_error_of_our_own_keeps_its_traceback(vdiff, monkeypatch):
    """Only refusals become a line: a bug must not look like one."""
    monkeypatch.setattr(vdiff_kernels.media, "check_output", lambda path: 1 / 0)
    assert isinstance(vdiff("sample", "a seven", "-o", "a.gif").exception, ZeroDivisionError)


@pytest.mark.parametrize("package, name", [("typer", "a.gif"), ("tqdm", "a.gif"), ("av", "a.mp4"), ("PIL", "a.gif")])
def test_a_missing_package(package, name, weights, tmp_path, monkeypatch, capsys):
    for module in ("app", "options", "sample", "train"):  # imported anew, and the old ones again afterwards
        monkeypatch.delitem(sys.modules, f"vdiff_kernels.cli.{module}")
        monkeypatch.delattr(cli, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["vdiff", "sample", "a seven", "-o", str(tmp_path / name), "--weights", str(weights)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    expected = f"vdiff: the package {package} is missing; install it with: pip install 'vdiff_kernels[cli]'\n"
    assert capsys.readouterr() == ("", expected)


def test_the_library_needs_none_of_them():
    code = (
        "import sys; sys.modules |= dict.fromkeys(['typer', 'av', 'PIL', 'imageio', 'tqdm', 'sklearn'])\n"
        "import vdiff_kernels.diffusion.trainer"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
