//! What is in the image, as an SPDX 2.3 document.

use anyhow::Result;
use serde_json::{Value, json};

use super::base::{ARCHITECTURE, Package};
use super::crates::Crate;
use super::{contents, oci, tree};

/// Writes the document. `agent` is the executable, whose sum makes the document's name its own.
pub(super) fn document(agent: &[u8], crates: &[Crate], packages: &[Package]) -> Result<String> {
    let version = contents::VERSION;
    let sum = oci::sha256(agent);
    let created = oci::timestamp(tree::epoch()?);
    let mut described = vec![json!({
        "SPDXID": "SPDXRef-image",
        "name": "passlane",
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "licenseConcluded": "Apache-2.0 OR MIT",
        "licenseDeclared": "Apache-2.0 OR MIT",
        "copyrightText": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": sum }],
    })];
    described.extend(crates.iter().map(of_crate));
    described.extend(packages.iter().map(of_package));
    let contains = |package: &Value| {
        json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": package.get("SPDXID"),
        })
    };
    let mut relations = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    })];
    relations.extend(described.iter().skip(1).map(contains));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("passlane-{version}-{}", ARCHITECTURE.oci),
        "documentNamespace": format!("https://passlane.io/spdx/{version}/{sum}"),
        "creationInfo": { "created": created, "creators": ["Tool: cargo-xtask-image"] },
        "packages": described,
        "relationships": relations,
    });
    Ok(format!("{document:#}\n"))
}

fn of_crate(each: &Crate) -> Value {
    let Crate { name, version, license, .. } = each;
    json!({
        "SPDXID": format!("SPDXRef-crate-{}", identifier(&format!("{name}-{version}"))),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license,
        "copyrightText": "NOASSERTION",
        "filesAnalyzed": false,
        "externalRefs": [reference(&format!("pkg:cargo/{name}@{}", escaped(version)))],
    })
}

fn of_package(each: &Package) -> Value {
    let Package { name, version, sha256, .. } = each;
    let place = format!("pkg:deb/debian/{name}@{}?arch={}", escaped(version), ARCHITECTURE.debian);
    json!({
        "SPDXID": format!("SPDXRef-debian-{}", identifier(name)),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "comment": format!("licences: /usr/share/doc/{name}/copyright in the image"),
        "filesAnalyzed": false,
        "checksums": [{ "algorithm": "SHA256", "checksumValue": sha256 }],
        "externalRefs": [reference(&place)],
    })
}

fn reference(place: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": place,
    })
}

/// Letters, digits, dots and dashes: SPDX allows no others.
fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// A version in a package URL.
fn escaped(version: &str) -> String {
    version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_versions_have_only_what_is_allowed() {
        assert_eq!(identifier("libstdc++6_1.0~rc"), "libstdc--6-1.0-rc");
        assert_eq!(escaped("1:2.36-9+deb12u1~x"), "1%3A2.36-9%2Bdeb12u1%7Ex");
    }
}
