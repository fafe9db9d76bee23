//! What the manifests put into the Debian packages is there.

use std::path::Path;

#[test]
fn what_the_debian_packages_take_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = std::fs::read_to_string(root.join("packaging/deb")).unwrap();
    for (folder, program) in [("plugin-server", "mtls-auth"), ("tls-shim", "tls-shim")] {
        let folder = root.join(folder);
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
        let assets = assets.split("\n]\n").next().unwrap();
        let sources: Vec<_> = assets
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('['))
            .map(|line| line.split('"').nth(1).unwrap())
            .collect();
        assert!(sources.len() > 5);
        for source in sources {
            let made = format!("target/release/packaging/{program}/");
            let is_there = if let Some(file) = source.strip_prefix(&made) {
                // The script writes man pages and completions there.
                file == "man/*.1"
                    || ["bash", "fish", "zsh"].iter().any(|shell| file == format!("{program}.{shell}"))
            } else if let Some(name) = source.strip_prefix("target/release/") {
                name == program
            } else if let Some(all) = source.strip_suffix("*.md") {
                folder.join(all).is_dir()
            } else {
                folder.join(source).exists()
            };
            assert!(is_there, "{program}: {source}");
        }
        assert!(script.contains("for shell in bash fish zsh; do") && script.contains("man \"$made/man\""));
    }
}
