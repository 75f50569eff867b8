//! What the script tests cannot show: files on a disk.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use super::{Watch, load, load_for, watch};

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
";

fn service(name: &str) -> String {
    SERVICE.replace("NAME", name)
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn names(path: &Path) -> Vec<String> {
    load(path).unwrap().0.services.into_keys().map(|name| name.name.to_string()).collect()
}

fn error(path: &Path) -> String {
    load(path).unwrap_err().to_string().replace(path.to_str().unwrap(), "PATH")
}

#[test]
fn a_directory_is_all_its_manifests_and_nothing_else() {
    let directory = directory(&[
        ("b.yaml", &service("b")),
        ("a.yml", &service("a")),
        (
            "c.json",
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},
	"spec":{"clusterIP":"10.96.0.12","ports":[{"port":80}]}}"#,
        ),
        ("readme.txt", "not: a: manifest"),
        (".draft.yaml", "not: a: manifest"),
    ]);
    fs::create_dir(directory.path().join("sub.yaml")).unwrap();
    assert_eq!(names(directory.path()), ["c", "a", "b"]);
}

#[test]
fn nodes_are_kept_by_name_and_ranges_of_all_service_cidrs_together() {
    let cidr = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\n";
    let directory = directory(&[
        ("a.yaml", &format!("{cidr}metadata: {{name: a}}\nspec: {{cidrs: [10.96.0.0/16]}}\n")),
        (
            "b.yaml",
            &format!(
                "{cidr}metadata: {{name: b}}\nspec: {{cidrs: [10.97.0.0/16, 'fd00::/112']}}\n"
            ),
        ),
        ("node.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n"),
    ]);
    let (snapshot, notices) = load(directory.path()).unwrap();
    assert!(notices.is_empty() && snapshot.services.is_empty());
    assert_eq!(snapshot.nodes.into_keys().collect::<Vec<_>>(), ["node-a"]);
    let cidrs: Vec<_> = snapshot.service_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.96.0.0/16", "10.97.0.0/16", "fd00::/112"]);
}

#[test]
fn a_proxy_with_a_name_loads_only_the_services_of_that_name() {
    let label = "namespace: shop, labels: {service.kubernetes.io/service-proxy-name: edge}";
    let directory = directory(&[
        ("a.yaml", &service("a")),
        ("b.yaml", &service("b").replace("namespace: shop", label)),
    ]);
    assert_eq!(names(directory.path()), ["a"]);
    let (snapshot, _) = load_for(directory.path(), Some("edge")).unwrap();
    let names: Vec<_> = snapshot.services.into_keys().map(|name| name.name.to_string()).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn an_empty_directory_holds_no_services_and_an_empty_file_is_half_written() {
    let directory = directory(&[]);
    assert!(names(directory.path()).is_empty());
    for text in ["", "\n", "# later\n", "---\n"] {
        fs::write(directory.path().join("a.yaml"), text).unwrap();
        assert_eq!(
            error(directory.path()),
            "PATH/a.yaml: no object in the file; write one, or remove the file",
            "{text:?}"
        );
    }
}

#[test]
fn a_missing_path_and_other_encodings_are_errors() {
    let directory = directory(&[]);
    let missing = directory.path().join("missing");
    assert!(error(&missing).starts_with("PATH: read: "), "{}", error(&missing));
    fs::write(directory.path().join("a.yaml"), b"\xff\xfe").unwrap();
    assert!(error(directory.path()).contains("not UTF-8"));
}

#[test]
fn all_problems_of_all_files_are_reported_at_once() {
    let directory = directory(&[
        ("a.yaml", &service("a").replace("80", "0")),
        ("b.yaml", "kind: [\n"),
        ("c.yaml", &format!("{}---\nkind: Pod\n", service("c").replace("v1", "v2"))),
    ]);
    let error = error(directory.path());
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    let first = "PATH/a.yaml:4:46: service shop/a: spec.ports[0].port: 0 is not a port; ";
    assert!(lines[0].starts_with(first), "{error}");
    assert!(lines[1].starts_with("PATH/b.yaml:"), "{error}");
}

#[test]
fn a_large_file_is_within_the_limits_of_the_parser() {
    let mut text = String::new();
    for number in 0..3_000 {
        text.push_str("---\n");
        text.push_str(&service(&format!("s{number}")));
    }
    let directory = directory(&[("a.yaml", &text)]);
    assert_eq!(names(directory.path()).len(), 3_000);
}

async fn signalled(watch: &mut Watch) -> bool {
    tokio::time::timeout(Duration::from_millis(400), watch.changed())
        .await
        .is_ok_and(|result| result.map(|()| true).unwrap())
}

struct Site {
    _root: TempDir,
    path: PathBuf,
}

fn site(path: &str) -> Site {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(path);
    Site { _root: root, path }
}

#[tokio::test]
async fn files_that_come_change_and_go_are_signalled() {
    let site = site("services");
    fs::create_dir(&site.path).unwrap();
    let mut watch = watch(&site.path).unwrap();
    assert!(!signalled(&mut watch).await, "nothing happened yet");
    let file = site.path.join("a.yaml");
    fs::write(&file, service("a")).unwrap();
    assert!(signalled(&mut watch).await, "created");
    assert!(!signalled(&mut watch).await, "once");
    fs::write(&file, service("b")).unwrap();
    assert!(signalled(&mut watch).await, "written");
    fs::write(site.path.join(".tmp"), service("c")).unwrap();
    fs::rename(site.path.join(".tmp"), &file).unwrap();
    assert!(signalled(&mut watch).await, "renamed over");
    fs::remove_file(&file).unwrap();
    assert!(signalled(&mut watch).await, "removed");
}

#[tokio::test]
async fn a_directory_that_vanishes_and_comes_back_is_watched_again() {
    let site = site("etc/services");
    let mut watch = watch(&site.path).unwrap();
    fs::create_dir_all(&site.path).unwrap();
    assert!(signalled(&mut watch).await, "appeared with its parent");
    fs::write(site.path.join("a.yaml"), service("a")).unwrap();
    assert!(signalled(&mut watch).await, "file in it");
    fs::remove_dir_all(site.path.parent().unwrap()).unwrap();
    assert!(signalled(&mut watch).await, "vanished");
    fs::create_dir_all(&site.path).unwrap();
    assert!(signalled(&mut watch).await, "came back");
    fs::write(site.path.join("a.yaml"), service("a")).unwrap();
    assert!(signalled(&mut watch).await, "file in the new one");
}

#[tokio::test]
async fn the_symlink_swap_of_a_configmap_is_signalled() {
    let site = site("mount");
    for version in ["..v1", "..v2"] {
        fs::create_dir_all(site.path.join(version)).unwrap();
        fs::write(site.path.join(version).join("a.yaml"), service(&version[2..])).unwrap();
    }
    symlink("..v1", site.path.join("..data")).unwrap();
    symlink("..data/a.yaml", site.path.join("a.yaml")).unwrap();
    let file = site.path.join("a.yaml");
    let mut of_directory = watch(&site.path).unwrap();
    let mut of_file = watch(&file).unwrap();
    assert_eq!(names(&site.path), ["v1"]);
    symlink("..v2", site.path.join("..tmp")).unwrap();
    fs::rename(site.path.join("..tmp"), site.path.join("..data")).unwrap();
    assert!(signalled(&mut of_directory).await);
    assert!(signalled(&mut of_file).await);
    assert_eq!(names(&site.path), ["v2"]);
    fs::write(site.path.join("..v2/a.yaml"), service("3")).unwrap();
    assert!(signalled(&mut of_file).await, "the watch moved on to the new target");
}

#[tokio::test]
async fn a_single_file_is_watched_and_its_neighbours_are_not() {
    let site = site("a.yaml");
    fs::write(&site.path, service("a")).unwrap();
    let mut watch = watch(&site.path).unwrap();
    fs::write(site.path.with_file_name("other.yaml"), service("b")).unwrap();
    assert!(!signalled(&mut watch).await, "a neighbour");
    fs::write(&site.path, service("b")).unwrap();
    assert!(signalled(&mut watch).await, "written in place");
    let draft = site.path.with_file_name("draft");
    fs::write(&draft, service("c")).unwrap();
    fs::rename(&draft, &site.path).unwrap();
    assert!(signalled(&mut watch).await, "renamed over");
    fs::remove_file(&site.path).unwrap();
    assert!(signalled(&mut watch).await, "removed");
    fs::write(&site.path, service("d")).unwrap();
    assert!(signalled(&mut watch).await, "back");
}

#[tokio::test]
async fn a_file_that_is_still_being_written_gives_no_signal() {
    use std::io::Write;

    let site = site("services");
    fs::create_dir(&site.path).unwrap();
    let mut watch = watch(&site.path).unwrap();
    let mut file = fs::File::create(site.path.join("a.yaml")).unwrap();
    file.write_all(b"kind: Serv").unwrap();
    assert!(!signalled(&mut watch).await);
    file.write_all(b"ice").unwrap();
    drop(file);
    assert!(signalled(&mut watch).await);
}

#[tokio::test]
async fn a_signal_survives_a_dropped_wait() {
    let site = site("services");
    fs::create_dir(&site.path).unwrap();
    let mut watch = watch(&site.path).unwrap();
    // A machine that sleeps through the 50 ms of quiet gives the signal at once: try again then.
    for _ in 0..100 {
        fs::write(site.path.join("a.yaml"), service("a")).unwrap();
        let short = tokio::time::timeout(Duration::from_millis(10), watch.changed()).await;
        if short.is_err() {
            assert!(signalled(&mut watch).await);
            return;
        }
    }
    panic!("no wait could be dropped early in a hundred tries");
}

#[test]
fn the_example_of_a_gateway_is_understood() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/gateway");
    let (snapshot, notices) = load(&directory).unwrap();
    assert_eq!(notices, []);
    let watching = snapshot.services.values().next().unwrap().watching.as_ref().unwrap();
    assert!(watching.check.is_some() && watching.sorry_servers.len() == 1);
}
