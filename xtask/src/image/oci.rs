//! The OCI image layout: blobs by their digest, and who refers to whom.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tree::{self, Tree};

/// A written image.
pub(super) struct Archive {
    pub(super) bytes: Vec<u8>,
    /// The digest that names the image: `sha256:…`.
    pub(super) manifest: String,
}

/// The sum of `bytes` as hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packs the layers, the lowest first, into an OCI archive with one image in it.
pub(super) fn archive(layers: &[Tree], version: &str, architecture: &str) -> Result<Archive> {
    let mut blobs = Tree::default();
    let mut described = Vec::new();
    let mut unpacked = Vec::new();
    for layer in layers {
        let tar = layer.tar()?;
        unpacked.push(format!("sha256:{}", sha256(&tar)));
        described.push(put(
            &mut blobs,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            compress(&tar)?,
        ));
    }
    let config = config(&unpacked, version, architecture)?;
    let config =
        put(&mut blobs, "application/vnd.oci.image.config.v1+json", config.to_string().into());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": described,
    });
    let mut manifest = put(&mut blobs, MANIFEST, manifest.to_string().into());
    let digest = manifest.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(fields) = manifest.as_object_mut() {
        let name = json!({ "org.opencontainers.image.ref.name": version });
        fields.insert("annotations".to_owned(), name);
        let platform = json!({ "architecture": architecture, "os": "linux" });
        fields.insert("platform".to_owned(), platform);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let mut add = |path: &str, text: Value| {
        blobs.add(path, path, text.to_string().into(), false);
    };
    add("index.json", index);
    add("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }));
    Ok(Archive { bytes: blobs.tar()?, manifest: digest })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Adds a blob and returns its descriptor.
fn put(blobs: &mut Tree, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = sha256(&bytes);
    let size = bytes.len();
    blobs.add(media_type, &format!("blobs/sha256/{digest}"), bytes, false);
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn compress(tar: &[u8]) -> Result<Vec<u8>> {
    // No time and no name in its header.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::new(LEVEL));
    gzip.write_all(tar)?;
    Ok(gzip.finish()?)
}

/// More makes it a hundredth smaller and takes twice as long.
const LEVEL: u32 = 6;

fn config(unpacked: &[String], version: &str, architecture: &str) -> Result<Value> {
    let created = timestamp(tree::epoch()?);
    let history: Vec<_> = unpacked
        .iter()
        .map(|_| json!({ "created": created, "created_by": "cargo xtask image" }))
        .collect();
    Ok(json!({
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": "0:0",
            "Env": ["PATH=/usr/sbin:/usr/bin"],
            "Entrypoint": ["/usr/bin/passlane"],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "passlane",
                "org.opencontainers.image.description": "A Kubernetes Service proxy: IPVS schedules, eBPF carries established flows",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": unpacked },
        "history": history,
    }))
}

/// Seconds since 1970 as RFC 3339 has them.
pub(super) fn timestamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970, in years that begin in March: so leap days end them.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn layers() -> [Tree; 2] {
        let mut one = Tree::default();
        one.add("a", "etc/a", b"aaa".to_vec(), false);
        let mut two = Tree::default();
        two.add("b", "usr/bin/b", b"bbb".to_vec(), true);
        [one, two]
    }

    fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let mut entries = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            entries.push((path, bytes));
        }
        entries
    }

    #[test]
    fn every_blob_has_the_digest_that_refers_to_it() {
        let archive = archive(&layers(), "1.2.3", "amd64").unwrap();
        let entries = entries(&archive.bytes);
        let get = |path: &str| {
            let found = entries.iter().find(|(name, _)| name == path);
            &found.unwrap_or_else(|| panic!("no {path}")).1
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let hex = digest.strip_prefix("sha256:").unwrap();
            let bytes = get(&format!("blobs/sha256/{hex}"));
            assert_eq!(sha256(bytes), hex);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(get("index.json")).unwrap();
        assert_eq!(index["manifests"][0]["digest"], archive.manifest.as_str());
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        for (number, layer) in layers().iter().enumerate() {
            let packed = blob(&manifest["layers"][number]);
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut tar).unwrap();
            assert_eq!(tar, layer.tar().unwrap());
            let digest = format!("sha256:{}", sha256(&tar));
            assert_eq!(config["rootfs"]["diff_ids"][number], digest);
        }
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/passlane");
    }

    #[test]
    fn the_same_layers_make_the_same_archive() {
        let once = archive(&layers(), "1.2.3", "amd64").unwrap();
        let again = archive(&layers(), "1.2.3", "amd64").unwrap();
        assert_eq!((once.bytes, once.manifest), (again.bytes, again.manifest));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
