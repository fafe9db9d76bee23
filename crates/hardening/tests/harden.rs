//! In a process of its own, for it changes the whole of it.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use hardening::{harden, open_to_others};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};

#[test]
fn others_get_neither_memory_nor_files() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let path = folder.path().join(name);
        File::options().write(true).create_new(true).mode(0o666).open(&path).unwrap();
        mode(&path)
    };
    umask(Mode::empty());
    assert_eq!(made("before"), 0o666);
    assert!(prctl::get_dumpable().unwrap());
    harden().unwrap();
    assert!(!prctl::get_dumpable().unwrap());
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
    assert_eq!(made("after"), 0o640);

    umask(Mode::from_bits_truncate(0o070));
    harden().unwrap();
    assert_eq!(made("stricter"), 0o600);

    // What the process needs of itself can still be read.
    assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() > 0);
    for (mode, open) in [(0o600, None), (0o640, None), (0o604, Some(0o604)), (0o602, Some(0o602))] {
        let path = folder.path().join("after");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(open_to_others(&path), open);
    }
    assert_eq!(open_to_others(&folder.path().join("absent")), None);
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}
