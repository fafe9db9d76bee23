//! Completions and man pages tell of all that the command lines take.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use testbed::process::binary;

const PROGRAMS: [&str; 2] = ["mtls-auth", "tls-shim"];

fn said(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands of a program, as its help lists them.
fn commands(help: &str) -> Vec<&str> {
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let list = list.split("\n\n").next().unwrap();
    let names = list
        .lines()
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

/// Whatever a help text says that begins with two hyphens.
fn options(help: &str) -> BTreeSet<&str> {
    let words = help.split(|other: char| !other.is_ascii_alphanumeric() && other != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

#[test]
fn man_pages_name_every_option_of_every_command() {
    for name in PROGRAMS {
        let program = binary(name);
        let help = said(&program, &["--help"]);
        let commands = commands(&help);
        assert!(commands.len() > 3, "{help}");
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("man1");
        said(&program, &["man", folder.to_str().unwrap()]);
        let page = |file: String| {
            std::fs::read_to_string(folder.join(&file)).unwrap_or_else(|_| panic!("no {file}"))
        };
        let main = page(format!("{name}.1"));
        assert_eq!(main, said(&program, &["man"]));
        // Neither the commit nor the library, so that a page is the same in all builds.
        assert!(!main.contains("OpenSSL 3"), "{main}");
        let mut pages = vec![(help.clone(), main)];
        for command in &commands {
            pages.push((said(&program, &[command, "--help"]), page(format!("{name}-{command}.1"))));
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), pages.len());
        for (help, page) in pages {
            let page = page.replace("\\-", "-");
            assert!(page.contains(".TH "), "{page}");
            let all = options(&help);
            assert!(all.contains("--help"), "{help}");
            for option in all {
                assert!(page.contains(option), "{name}: {option} is not in {page}");
            }
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    for name in PROGRAMS {
        let program = binary(name);
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join(name);
        std::fs::write(&script, said(&program, &["completions", "bash"])).unwrap();
        // As bash calls it: the command, the word, and the word before.
        let complete = |words: &[&str]| {
            let completed = format!(
                "set -u; . \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
                 f=$(complete -p {name} | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                 $f {name} \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
            );
            let mut bash = Command::new("bash");
            let output = bash.args(["--norc", "-c", &completed]).arg(&script).args(words).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let lines = String::from_utf8(output.stdout).unwrap();
            lines.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let help = said(&program, &["--help"]);
        let first = complete(&[name, ""]);
        for word in commands(&help).into_iter().chain(options(&help)) {
            assert!(
                first.contains(word) || !help.contains(&format!("  {word}")),
                "{word} is not in {first:?}"
            );
        }
        for command in commands(&help) {
            let help = said(&program, &[command, "--help"]);
            let completed = complete(&[name, command, "--"]);
            for option in options(&help) {
                // Some are spoken of, and are no options of this command.
                let is_own = help.lines().any(|line| {
                    line.split([' ', ',']).any(|word| word == option) && line.trim_start().starts_with('-')
                });
                assert!(
                    !is_own || completed.contains(option),
                    "{name} {command}: {option} is not in {completed:?}"
                );
            }
        }
        assert_eq!(complete(&[name, "comp"]), ["completions".to_owned()].into());
        for shell in ["elvish", "fish", "powershell", "zsh"] {
            assert!(said(&program, &["completions", shell]).contains("completions"), "{shell}");
        }
    }
}
