//! A file that changes while it is watched.

use std::path::Path;
use std::time::Duration;

use kong_entities::{Origin, Watched, follow_file, watch};

const EVERY: Duration = Duration::from_millis(5);

fn write(path: &Path, username: &str) {
    let text = format!("_format_version: '3.0'\nconsumers: [{{username: {username}}}]\n");
    std::fs::write(path, text).unwrap();
}

async fn until_known(watched: &mut Watched, username: &str) {
    watched.wait_for(|entities| entities.consumer_by_username(username).is_some()).await.unwrap();
}

#[tokio::test]
async fn a_new_version_is_read_and_a_broken_one_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kong.yml");
    write(&path, "first");
    let mut watched = watch(&path, EVERY).unwrap();
    until_known(&mut watched, "first").await;

    write(&path, "second");
    until_known(&mut watched, "second").await;

    // What is broken or gone changes nothing; the next good version counts again.
    std::fs::write(&path, "").unwrap();
    std::fs::remove_file(&path).unwrap();
    let replacement = dir.path().join("kong.yml.new");
    write(&replacement, "third");
    std::fs::rename(&replacement, &path).unwrap();
    until_known(&mut watched, "third").await;
}

#[tokio::test]
async fn a_broken_version_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kong.yml");
    write(&path, "first");
    let mut watched = watch(&path, EVERY).unwrap();
    watched.mark_unchanged();
    std::fs::write(&path, "plugins: [").unwrap();
    // Long enough for many looks; nothing to wait for can happen.
    let changed = tokio::time::timeout(EVERY * 20, watched.changed()).await;
    assert!(changed.is_err(), "a broken version was taken");
    assert!(watched.borrow().consumer_by_username("first").is_some());
}

#[tokio::test]
async fn the_first_version_must_be_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kong.yml");
    std::fs::write(&path, "").unwrap();
    assert!(watch(&path, EVERY).unwrap_err().to_string().contains("empty"));
}

#[tokio::test]
async fn how_the_file_fares_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kong.yml");
    write(&path, "first");
    let mut followed = follow_file(&path, EVERY).unwrap();
    {
        let status = followed.status.borrow();
        assert_eq!((status.origin, status.generation, status.failures), (Origin::DeclarativeFile, 1, 0));
        assert!(status.age().is_some() && status.last_error.is_none());
    }
    std::fs::write(&path, "plugins: [").unwrap();
    let status = followed.status.wait_for(|status| status.failures == 1).await.unwrap().clone();
    assert!(status.last_error.unwrap().contains("kong.yml") && status.generation == 1);

    write(&path, "second");
    let status = followed.status.wait_for(|status| status.generation == 2).await.unwrap().clone();
    assert_eq!(status.last_error, None);
    until_known(&mut followed.entities, "second").await;
}
