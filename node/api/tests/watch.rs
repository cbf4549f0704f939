//! The watcher on real files.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use meshgate_api::{Changes, Directory, Watcher};
use tempfile::TempDir;

/// Long enough for anything to arrive; a wait that succeeds ends long before.
const SOON: Duration = Duration::from_secs(5);

/// Events are queued before the call that causes them returns, so nothing comes after this.
const NEVER: Duration = Duration::from_millis(20);

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 1}}]}}\n")
}

fn watch(dir: &TempDir) -> (Directory, Watcher) {
    let mut directory = Directory::open(dir.path()).unwrap();
    let watcher = directory.watch().unwrap();
    directory.read().unwrap();
    (directory, watcher)
}

fn files(names: &[&str]) -> Changes {
    Changes::Files(names.iter().map(PathBuf::from).collect())
}

#[test]
fn a_file_counts_when_it_is_closed() {
    let dir = TempDir::new().unwrap();
    let (mut directory, mut watcher) = watch(&dir);
    let mut file = File::create(dir.path().join("a.yaml")).unwrap();
    file.write_all(service("a").as_bytes()).unwrap();
    file.flush().unwrap();
    assert!(!watcher.wait(NEVER).unwrap(), "a mere write is nothing");
    drop(file);
    assert!(watcher.wait(SOON).unwrap());
    let changes = watcher.take();
    assert_eq!(changes, files(&["a.yaml"]));
    assert_eq!(directory.read_changes(&changes).unwrap().changes.len(), 2);
    assert!(!watcher.wait(NEVER).unwrap(), "nothing happened since");
}

#[test]
fn renames_deletions_and_links_count_and_other_files_do_not() {
    let dir = TempDir::new().unwrap();
    let (mut directory, mut watcher) = watch(&dir);
    fs::write(dir.path().join("a.yaml.tmp"), service("a")).unwrap();
    fs::write(dir.path().join(".a.yaml.swp"), "x").unwrap();
    assert!(!watcher.wait(NEVER).unwrap());
    fs::rename(dir.path().join("a.yaml.tmp"), dir.path().join("a.yaml")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(directory.read_changes(&watcher.take()).unwrap().changes.len(), 2);
    fs::rename(dir.path().join("a.yaml"), dir.path().join("b.yaml")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    let changes = watcher.take();
    assert_eq!(changes, files(&["a.yaml", "b.yaml"]));
    assert!(directory.read_changes(&changes).unwrap().changes.is_empty(), "the same object, elsewhere");
    symlink("b.yaml", dir.path().join("c.yaml")).unwrap();
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(watcher.take(), files(&["b.yaml", "c.yaml"]));
}

#[test]
fn the_swap_of_a_mounted_config_map_is_seen() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("..v1")).unwrap();
    fs::write(path("..v1/a.yaml"), service("a")).unwrap();
    symlink("..v1", path("..data")).unwrap();
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let (mut directory, mut watcher) = watch(&dir);
    // What the kubelet does.
    fs::create_dir(path("..v2")).unwrap();
    fs::write(path("..v2/a.yaml"), service("b")).unwrap();
    assert!(!watcher.wait(NEVER).unwrap(), "not before the swap");
    symlink("..v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    fs::remove_dir_all(path("..v1")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    let batch = directory.read_changes(&watcher.take()).unwrap();
    let names: Vec<_> = batch.changes.iter().map(|(name, object)| (name.name.to_string(), object.is_some())).collect();
    assert_eq!(names, [("a".to_owned(), false), ("b".to_owned(), true)]);
    assert!(batch.findings.is_empty());
}

#[test]
fn directories_below_are_watched_as_they_come() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("old")).unwrap();
    let (mut directory, mut watcher) = watch(&dir);
    fs::write(dir.path().join("old/a.yaml"), service("a")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(watcher.take(), files(&["old/a.yaml"]));
    fs::create_dir(dir.path().join("new")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(watcher.take(), Changes::Everything);
    fs::write(dir.path().join("new/b.yaml"), service("b")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(watcher.take(), files(&["new/b.yaml"]));
    assert_eq!(directory.read().unwrap().files, 2);
    fs::remove_dir_all(dir.path().join("new")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(directory.read_changes(&watcher.take()).unwrap().files, 1);
}

#[test]
fn a_directory_that_goes_away_is_found_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("source");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a")).unwrap();
    let mut directory = Directory::open(&path).unwrap();
    let mut watcher = directory.watch().unwrap();
    directory.read().unwrap();
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert!(directory.read_changes(&watcher.take()).is_err());
    assert!(!watcher.wait(NEVER).unwrap(), "said once");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("b.yaml"), service("b")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(directory.read_changes(&watcher.take()).unwrap().changes.len(), 2, "a goes, b comes");
    fs::write(path.join("c.yaml"), service("c")).unwrap();
    assert!(watcher.wait(SOON).unwrap());
    assert_eq!(watcher.take(), files(&["c.yaml"]), "the new directory is watched");
}

#[test]
fn a_wait_ends_when_woken() {
    let dir = TempDir::new().unwrap();
    let (_directory, mut watcher) = watch(&dir);
    let waker = watcher.waker();
    let thread = std::thread::spawn(move || waker.wake());
    assert!(!watcher.wait(Duration::from_secs(60)).unwrap());
    thread.join().unwrap();
}
