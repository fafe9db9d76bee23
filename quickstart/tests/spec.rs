//! What runs on a real Kong, and not here: that it can be started, that all it refers to is there, and that its document
//! says what it does.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn spec() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec")
}

/// The first words of the lines that begin with this.
fn first_words<'a>(text: &'a str, prefix: &str) -> HashSet<&'a str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(prefix))
        .map(|rest| rest.split([' ', '`']).next().unwrap())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The names of the faults that a program says it knows, and those of its part of the document.
fn faults(program: &str, heading: &str) -> (HashSet<String>, HashSet<String>) {
    let help = succeeds(Command::new(spec().join(program)).arg("--help"));
    let (_, known) = help.split_once("\nfaults:\n").unwrap();
    let document = std::fs::read_to_string(spec().join("README.md")).unwrap();
    let (_, part) = document.split_once(&format!("\n# {heading}\n")).unwrap();
    let part = part.split("\n# ").next().unwrap();
    let owned = |words: HashSet<&str>| words.into_iter().map(str::to_owned).collect();
    (owned(first_words(known, "  ")), owned(first_words(part, "| `")))
}

#[test]
fn fail_closed_and_soak_know_the_faults_of_their_document_and_no_others() {
    for (program, heading) in [
        ("fail-closed", "What Kong lets pass while the plugin server is away"),
        ("soak", "Who gets what for an hour"),
    ] {
        let (known, documented) = faults(program, heading);
        assert!(documented.len() > 5, "{program}");
        assert_eq!(documented, known, "{program}");
    }
}

/// The files in the folder of the specs with this ending, by name.
fn files(ending: &str) -> BTreeSet<String> {
    std::fs::read_dir(spec().join("mtls-auth"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(ending))
        .collect()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(spec().join("mtls-auth").join(name)).unwrap()
}

/// Fails with what the command has said if it fails.
fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_spec_can_be_read_by_luajit_and_stands_in_the_document() {
    let specs = files("_spec.lua");
    let document = std::fs::read_to_string(spec().join("README.md")).unwrap();
    let (_, table) = document.split_once("\n| file | is about |\n").unwrap();
    assert_eq!(first_words(table, "| [`"), specs.iter().map(String::as_str).collect());
    for name in &files(".lua") {
        // As bytecode, to nowhere: it is compiled, and nothing of it runs.
        succeeds(Command::new("luajit").arg("-b").arg(spec().join("mtls-auth").join(name)).arg("/dev/null"));
    }
    for name in &specs {
        let text = text(name);
        assert!(text.contains("helpers.all_strategies()"), "{name} runs with one strategy only");
        assert!(text.contains("stacks.each_protocol()"), "{name} runs in one protocol only");
    }
}

/// The text between each of these and the next quotation mark.
fn quoted_after<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).map(|rest| rest.split('"').next().unwrap())
}

/// The certificates that a spec names where a function of its stack takes one.
fn certificates(text: &str) -> HashSet<&str> {
    let mut names: HashSet<&str> = [":pem(\"", ":insert_ca(\"", "_encoded(\""]
        .iter()
        .flat_map(|start| quoted_after(text, start))
        .collect();
    for call in [":get(", ":get_from_kong("] {
        // The second argument, if it is no variable: ("a.test", "alice") or (host, "alice", {.
        let calls = text.split(call).skip(1).filter_map(|rest| rest.split_once(", \""));
        names.extend(calls.filter_map(|(first, rest)| {
            let (name, after) = rest.split_once('"')?;
            // What is no more than the beginning of a name is left out.
            (!first.contains([')', '\n']) && after.starts_with([',', ')'])).then_some(name)
        }));
    }
    names
}

#[test]
fn every_certificate_that_a_spec_names_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let script = spec().join("mtls-auth/fixtures/make-certificates");
    succeeds(
        Command::new(script).arg(folder.path()).args(["http://127.0.0.1:9/", "http://127.0.0.1:9/ca.crl"]),
    );
    let mut named = 0;
    for name in files(".lua") {
        let text = text(&name);
        for certificate in certificates(&text) {
            named += 1;
            let path = folder.path().join(format!("{certificate}.crt"));
            assert!(path.exists(), "{name} names {certificate:?}");
        }
        for fixture in text.split("%s/fixtures/").skip(1) {
            let fixture = fixture.split([' ', '"']).next().unwrap();
            assert!(spec().join("mtls-auth/fixtures").join(fixture).exists(), "{name} names {fixture:?}");
        }
    }
    assert!(named > 30, "{named}");
}

#[test]
fn the_guard_of_the_specs_is_the_one_to_use() {
    let samples = std::fs::read_to_string(spec().join("../kong-conf/guard.yml")).unwrap();
    let lines: Vec<&str> = samples.lines().map(str::trim).collect();
    let stack = text("stack.lua");
    let (_, rest) = stack.split_once("local GUARD = [[\n").unwrap();
    let guard: Vec<&str> = rest.split_once("]]").unwrap().0.lines().map(str::trim).collect();
    assert!(guard.len() > 3 && lines.windows(guard.len()).any(|window| window == guard), "{guard:?}");
}

#[test]
fn run_says_how_it_is_called_and_refuses_what_it_does_not_know() {
    let run = spec().join("run");
    for script in [
        run.clone(),
        spec().join("mtls-auth/fixtures/make-certificates"),
        spec().join("../.pongo/pongo-setup.sh"),
    ] {
        succeeds(Command::new("bash").arg("-n").arg(script));
    }
    let help = succeeds(Command::new(&run).arg("--help"));
    for word in ["--strategy", "--protocol", "KONG_SRC", "BUSTED", "MTLS_AUTH", "TLS_SHIM", "KONG_TEST_"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for wrong in [&["--strategy", "mysql"][..], &["--protocol"], &["--verbose"], &["not_there_spec.lua"]] {
        let output = Command::new(&run).args(wrong).env("KONG_SRC", "/nowhere").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// What stands in for busted: it says of itself what it was called with, as a test that passes or does not.
fn run_with(busted: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(spec().join("run"))
        .args(arguments)
        .env("KONG_SRC", spec())
        .env("BUSTED", busted)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn run_counts_what_has_passed_and_fails_where_anything_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let busted = |name: &str, lines: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("echo \"# $KONG_TEST_DATABASE $MTLS_AUTH_PROTOCOL $*\"\n{lines}\n"))
            .unwrap();
        format!("bash {}", path.display())
    };
    let file = spec().join("mtls-auth/01-schema_spec.lua").canonicalize().unwrap().display().to_string();
    let good = busted("good", "echo ok 1 - a; echo ok 2 - b; echo 1..2");
    let (code, said) = run_with(&good, &[&file, "--", "--filter=a"]);
    assert_eq!(code, Some(0), "{said}");
    for strategy in ["off", "postgres"] {
        for protocol in ["msgpack", "protobuf"] {
            assert!(said.contains(&format!("# {strategy}, {protocol}: 2 passed, 0 failed\n")), "{said}");
            let called =
                said.lines().find(|line| line.starts_with(&format!("# {strategy} {protocol} "))).unwrap();
            assert!(called.contains("-o TAP --filter=a") && called.ends_with(&file), "{called}");
        }
    }
    let one = ["--strategy", "off", "--protocol", "protobuf", &file];
    assert_eq!(run_with(&good, &one).1.matches(" passed, ").count(), 1);
    for (name, lines) in [
        ("failed", "echo ok 1 - a; echo not ok 2 - b; echo 1..2"),
        ("broken-off", "echo ok 1 - a"),
        ("empty", "echo 1..0"),
        ("ended-badly", "echo ok 1 - a; echo 1..1; exit 1"),
    ] {
        let (code, said) = run_with(&busted(name, lines), &one);
        assert_eq!(code, Some(1), "{name}: {said}");
    }
}
