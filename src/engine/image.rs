//! Images on the device: listing, presence, removal. References are compared in normal form, never as parts of text
//! (weakness W33).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::daemon::{CHANGE, Raw, escaped};
use super::{Engine, EngineError, ImageFacts};

/// The members of a listed image that we read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
}

/// An image reference in normal form: `nginx` is `docker.io/library/nginx` with tag `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Registry and repository.
    pub(super) repository: String,
    /// Tag, or digest (`sha256:…`).
    pub(super) version: String,
}

impl Reference {
    /// Reads a reference. `None` when it has characters that no reference has, or an empty part.
    pub(super) fn parse(text: &str) -> Option<Reference> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if text.is_empty() || !text.bytes().all(valid) {
            return None;
        }
        let (repository, version) = if let Some((name, digest)) = text.split_once('@') {
            // A tag beside a digest has no meaning.
            (split_tag(name).0, digest)
        } else {
            let (name, tag) = split_tag(text);
            (name, tag.unwrap_or("latest"))
        };
        let repository = normal_repository(repository);
        if repository
            .split('/')
            .any(|part| part.is_empty() || part.starts_with('.'))
            || version.is_empty()
        {
            return None;
        }
        Some(Reference {
            repository,
            version: version.to_owned(),
        })
    }
}

/// Name and tag: a colon after the last slash starts a tag, one before it a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn normal_repository(name: &str) -> String {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" {
        "docker.io"
    } else {
        registry
    };
    if registry == "docker.io" && !path.contains('/') {
        return format!("docker.io/library/{path}");
    }
    format!("{registry}/{path}")
}

impl Engine {
    /// All images (`get_images`, image presence).
    pub async fn images(&self) -> Result<Vec<ImageFacts>, EngineError> {
        let listed = self.listed_images().await?;
        Ok(listed
            .into_iter()
            .map(|image| ImageFacts {
                id: image.id,
                repo_tags: image.repo_tags.unwrap_or_default(),
            })
            .collect())
    }

    /// The dictionaries that `get_images` answers (`session-and-api.md` 6.5): lower-camel names, empty and zero
    /// members left out.
    pub async fn images_raw(&self) -> Result<Vec<Value>, EngineError> {
        let images: Vec<Value> = self.get("list images", "", "/images/json").await?;
        Ok(images.iter().map(outside_form).collect())
    }

    /// Whether exactly this reference is present (references normalised, weakness W33).
    pub async fn has_image(&self, reference: &str) -> Result<bool, EngineError> {
        Ok(self.image_id(reference).await?.is_some())
    }

    /// The id of the image that is called exactly this.
    pub async fn image_id(&self, reference: &str) -> Result<Option<String>, EngineError> {
        let Some(wanted) = Reference::parse(reference) else {
            return Ok(None);
        };
        let images = self.listed_images().await?;
        Ok(images
            .into_iter()
            .find(|image| {
                image
                    .names()
                    .any(|name| Reference::parse(name).as_ref() == Some(&wanted))
            })
            .map(|image| image.id))
    }

    /// Removes an image that has no name any more. One that has, that a container uses or that is not there is left.
    pub async fn remove_unnamed_image(&self, id: &str) -> Result<(), EngineError> {
        let images = self.listed_images().await?;
        if images
            .iter()
            .any(|image| image.id == id && image.names().next().is_none())
        {
            self.remove_image(id).await?;
        }
        Ok(())
    }

    /// Removes every tag whose repository equals `repository`, but not the image that is also called `keep`; used by another
    /// container or missing is success.
    pub async fn remove_repository(&self, repository: &str, keep: Option<&str>) -> Result<(), EngineError> {
        let Some(Reference { repository, .. }) = Reference::parse(repository) else {
            return Ok(());
        };
        let keep = keep.and_then(Reference::parse);
        for image in self.listed_images().await? {
            if keep.is_some() && image.names().any(|name| Reference::parse(name) == keep) {
                continue;
            }
            for name in image.removable_names() {
                if Reference::parse(name).is_some_and(|found| found.repository == repository) {
                    self.remove_image(name).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes one name of an image, and the image with its last name. Missing or in use is success.
    pub(super) async fn remove_image(&self, name: &str) -> Result<bool, EngineError> {
        let raw = Raw::delete(format!("/images/{}", escaped(name)));
        match self.send("remove image", CHANGE, name, raw).await {
            Ok(_) => Ok(true),
            Err(EngineError::NoSuchImage(_)) => Ok(false),
            // 409: a container uses it, or the image has further names and only the id was given.
            Err(EngineError::Other(text)) if text.contains("conflict: unable to") => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn listed_images(&self) -> Result<Vec<Listed>, EngineError> {
        self.get("list images", "", "/images/json").await
    }
}

impl Listed {
    fn names(&self) -> impl Iterator<Item = &str> {
        let tags = self.repo_tags.iter().flatten();
        let digests = self.repo_digests.iter().flatten();
        tags.chain(digests)
            .map(String::as_str)
            .filter(|name| !name.contains("<none>"))
    }

    /// Tags; of an image whose tags moved on to a newer one, its digests. Removing a last tag removes digests too.
    fn removable_names(&self) -> impl Iterator<Item = &str> {
        let tagged = self.names().any(|name| !name.contains('@'));
        self.names().filter(move |name| !tagged || !name.contains('@'))
    }
}

/// The members of a listed image that `get_images` shows, and what they are called there.
const OUTSIDE: [(&str, &str); 8] = [
    ("Created", "created"),
    ("Containers", "containers"),
    ("SharedSize", "sharedSize"),
    ("VirtualSize", "virtualSize"),
    ("Id", "id"),
    ("Labels", "labels"),
    ("Size", "size"),
    ("RepoTags", "repoTags"),
];

fn outside_form(image: &Value) -> Value {
    let mut members = Map::new();
    for (inside, outside) in OUTSIDE {
        match image.get(inside) {
            None | Some(Value::Null) => {}
            Some(Value::Number(number)) if number.as_i64() == Some(0) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(Value::Object(map)) if map.is_empty() => {}
            Some(value) => {
                members.insert(outside.to_owned(), value.clone());
            }
        }
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Option<(String, String)> {
        Reference::parse(text).map(|reference| (reference.repository, reference.version))
    }

    #[test]
    fn references_are_read_as_the_daemon_reads_them() {
        for (text, repository, version) in [
            ("nginx", "docker.io/library/nginx", "latest"),
            ("docker.io/nginx:1", "docker.io/library/nginx", "1"),
            ("my/nginx-x:1", "docker.io/my/nginx-x", "1"),
            ("localhost/x", "localhost/x", "latest"),
            ("127.0.0.1:5000/apps/x", "127.0.0.1:5000/apps/x", "latest"),
            ("r.example:5000/apps/x:1.4.0", "r.example:5000/apps/x", "1.4.0"),
            ("r.example/x:1@sha256:ab", "r.example/x", "sha256:ab"),
        ] {
            assert_eq!(
                normal(text),
                Some((repository.to_owned(), version.to_owned())),
                "{text}"
            );
        }
        for bad in ["", "a b", "a?b", "x/../y", "/x", "r.example/", "x:"] {
            assert_eq!(normal(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_listed_image_goes_out_without_empty_members() {
        let image = serde_json::json!({
            "Containers": -1, "Created": 1_785_852_000, "Id": "sha256:1", "Labels": null, "ParentId": "",
            "RepoDigests": [], "RepoTags": ["x:1"], "SharedSize": -1, "Size": 12, "VirtualSize": 0
        });
        assert_eq!(
            outside_form(&image),
            serde_json::json!({"created": 1_785_852_000, "containers": -1, "sharedSize": -1, "id": "sha256:1",
                "size": 12, "repoTags": ["x:1"]})
        );
    }

    #[test]
    fn an_image_is_removed_by_its_tags_and_without_tags_by_its_digests() {
        let of = |tags: &[&str], digests: &[&str]| Listed {
            id: String::new(),
            repo_tags: Some(tags.iter().map(|&tag| tag.to_owned()).collect()),
            repo_digests: Some(digests.iter().map(|&digest| digest.to_owned()).collect()),
        };
        let names = |image: &Listed| image.removable_names().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(&of(&["r.x/a:1"], &["r.x/a@sha256:1"])), ["r.x/a:1"]);
        assert_eq!(
            names(&of(&["<none>:<none>"], &["r.x/a@sha256:1"])),
            ["r.x/a@sha256:1"]
        );
        assert!(names(&of(&["<none>:<none>"], &["<none>@<none>"])).is_empty());
    }
}
