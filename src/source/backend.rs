//! What podman or buildah is asked to do, as calls of the program, and how its answers are read.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Error, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::description::Kind;
use super::record::MountTarget;
use crate::process::Call;
use crate::remedy::{Advised, Remedy};

/// When a signal ends us, so long a mount that is being made is waited for: ended halfway, nobody
/// knows whether it is counted.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

/// One backend, and how long its calls may take.
#[derive(Debug, Clone)]
pub struct Backend {
    kind: Kind,
    limit: Duration,
    environment: BTreeMap<String, String>,
}

/// The values that a call puts into the template of its command.
#[derive(Debug, Clone, Copy, Default)]
struct Substitutions<'a> {
    image: &'a str,
    name: &'a str,
    file: &'a str,
}

/// An image or a container as its backend describes it.
#[derive(Debug)]
pub struct Inspected {
    /// The image's id.
    pub id: String,
    /// The config, in one of the forms that [`crate::oci::BaseConfig::parse`] reads.
    pub config: String,
    /// The annotations of the image's manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Backend {
    /// One of that kind, whether it is there or not.
    pub fn new(kind: Kind, limit: Duration) -> Self {
        Self {
            kind,
            limit,
            environment: BTreeMap::new(),
        }
    }

    /// The same with less time.
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            limit: self.limit.min(limit),
            ..self.clone()
        }
    }

    /// The same with other variables in its environment.
    pub fn with_environment(&self, environment: &BTreeMap<String, String>) -> Self {
        Self {
            environment: environment.clone(),
            ..self.clone()
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Fills in a row of the table. What is filled in is never looked at again: it may be a user's
    /// words.
    fn unlimited(&self, template: &'static [&'static str], values: Substitutions<'_>) -> Call {
        let mut call = Call::new(self.kind.program(), [""; 0])
            .grace_period(GRACE_PERIOD)
            .environment(self.environment.clone());
        for word in template {
            call = match *word {
                "{image}" => call.operand(values.image),
                "{name}" => call.operand(values.name),
                "{file}" => call.operand(values.file),
                word => call.word(filled(word, values)),
            };
        }
        call
    }

    fn call(&self, template: &'static [&'static str], values: Substitutions<'_>) -> Call {
        self.unlimited(template, values).limit(self.limit)
    }

    /// The words that run a program in its user namespace.
    pub fn unshare_words(&self) -> &'static [&'static str] {
        self.kind.description().unshare
    }

    /// Describes an image that is in the storage.
    ///
    /// # Errors
    /// When it is not there, or the backend fails or says what cannot be understood.
    pub fn inspect_image(&self, image: &str) -> Result<Inspected> {
        let of = self.kind.description();
        let call = self.call(
            of.inspect_image,
            Substitutions {
                image,
                ..Substitutions::default()
            },
        );
        let name = call.name();
        let printed = call.run()?;
        let value = json(&printed, &name)?;
        let id = text_at(&value, of.image_id, &name)?;
        let whole = of.whole_config.and_then(|at| value.pointer(at)?.as_str());
        let config = match whole {
            Some(whole) if !whole.is_empty() => whole.to_owned(),
            _ => self.whole_config(&id).unwrap_or(printed),
        };
        let annotations = value.pointer(of.image_annotations);
        let annotations = annotations.and_then(Value::as_object).into_iter().flatten();
        let text =
            |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        Ok(Inspected {
            id,
            config,
            annotations: annotations.filter_map(text).collect(),
        })
    }

    /// The config of an image as it is, by skopeo where that is there: podman leaves fields out
    /// when it inspects (OnBuild, Shell).
    fn whole_config(&self, id: &str) -> Option<String> {
        let image = format!("containers-storage:@{id}");
        let call = Call::new("skopeo", ["inspect", "--raw", "--config"]).operand(image);
        let call = call.limit(self.limit).environment(self.environment.clone());
        let printed = call.run();
        let printed = printed.inspect_err(|e| tracing::debug!("the config as inspected: {e:#}"));
        printed.ok().filter(|config| !config.trim().is_empty())
    }

    /// Describes an existing container.
    ///
    /// # Errors
    /// As [`Backend::inspect_image`].
    pub fn inspect_container(&self, container: &str) -> Result<Inspected> {
        let of = self.kind.description();
        let call = self.call(
            of.inspect_container,
            Substitutions {
                name: container,
                ..Substitutions::default()
            },
        );
        let name = call.name();
        let printed = call.run()?;
        let Some(image) = of.image_of_container else {
            json(&printed, &name)?;
            return Ok(Inspected {
                id: String::new(),
                config: printed,
                annotations: BTreeMap::new(),
            });
        };
        self.inspect_image(&text_at(&json(&printed, &name)?, image, &name)?)
    }

    /// Fetches an image; that takes as long as it takes.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn pull(&self, image: &str) -> Result<()> {
        let template = self.kind.description().pull;
        self.unlimited(
            template,
            Substitutions {
                image,
                ..Substitutions::default()
            },
        )
        .run()
        .map(drop)
    }

    /// Takes the image of the layout that has that name in `directory` into the storage and gives
    /// it the name `name`. Nothing else there may be called `localhost/LAYOUT`.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn pull_layout(&self, directory: &Utf8Path, layout: &str, name: &str) -> Result<()> {
        let of = self.kind.description();
        let file = &format!("oci:{layout}");
        let values = Substitutions {
            file,
            ..Substitutions::default()
        };
        let call = self.unlimited(of.pull_layout, values);
        let printed = call.directory(directory).run()?;
        let values = Substitutions {
            image: last_line(&printed),
            name,
            ..Substitutions::default()
        };
        self.call(of.tag, values).run()?;
        let name = &format!("localhost/{layout}");
        let values = Substitutions {
            name,
            ..Substitutions::default()
        };
        self.call(of.untag, values).run().map(drop)
    }

    /// The call that builds an image and writes its id to `iidfile`; options and the context are to
    /// be added.
    pub fn build(&self, iidfile: &str) -> Call {
        let values = Substitutions {
            file: iidfile,
            ..Substitutions::default()
        };
        self.unlimited(self.kind.description().build, values)
    }

    /// The call that mounts an image without a container, where there is one.
    pub fn mount_image(&self, image: &str) -> Option<Call> {
        let template = self.kind.description().mount_image?;
        Some(self.call(
            template,
            Substitutions {
                image,
                ..Substitutions::default()
            },
        ))
    }

    /// The call that undoes one [`Backend::mount_image`].
    pub fn unmount_image(&self, image: &str) -> Call {
        self.call(
            self.kind.description().unmount_image,
            Substitutions {
                image,
                ..Substitutions::default()
            },
        )
    }

    /// Whether the image with that id is mounted, by whomever.
    ///
    /// # Errors
    /// When the backend does not tell.
    pub fn is_image_mounted(&self, id: &str) -> Result<bool> {
        Ok(self
            .mounted_images()?
            .iter()
            .any(|(mounted, _)| mounted == id))
    }

    /// The call that makes a container that is never run.
    ///
    /// # Errors
    /// When making it would change what is in it.
    pub fn create(&self, name: &str, image: &str) -> Result<Call> {
        let of = self.kind.description();
        if of.create_runs_onbuild {
            let config = self.inspect_image(image)?.config;
            let value = json(&config, "inspect")?;
            let on_build = value.pointer("/config/OnBuild").and_then(Value::as_array);
            ensure!(
                on_build.is_none_or(Vec::is_empty),
                Advised::new(
                    Remedy::ChoosePodman,
                    format!(
                        "{} would run the image's ONBUILD instructions when it makes a container to mount",
                        self.kind
                    )
                )
            );
        }
        let values = Substitutions {
            name,
            image,
            ..Substitutions::default()
        };
        Ok(self.call(of.create, values))
    }

    /// The call that mounts a container.
    pub fn mount(&self, name: &str) -> Call {
        self.call(
            self.kind.description().mount,
            Substitutions {
                name,
                ..Substitutions::default()
            },
        )
    }

    /// The call that undoes one [`Backend::mount`].
    pub fn unmount(&self, name: &str) -> Call {
        self.call(
            self.kind.description().unmount,
            Substitutions {
                name,
                ..Substitutions::default()
            },
        )
    }

    /// The call that removes a container with its mounts.
    pub fn remove(&self, name: &str) -> Call {
        self.call(
            self.kind.description().remove,
            Substitutions {
                name,
                ..Substitutions::default()
            },
        )
    }

    /// The names of the containers, those of builds too.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn containers(&self) -> Result<Vec<String>> {
        let call = self.call(self.kind.description().list, Substitutions::default());
        let printed = call.run_unguarded()?;
        let lines = printed.lines().map(str::trim);
        Ok(lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Whether there is such a container.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn is_there(&self, name: &str) -> Result<bool> {
        let names = self.containers()?;
        // A container may be known by its id too.
        Ok(names.iter().any(|other| other == name) || self.inspect_container(name).is_ok())
    }

    /// The containers that are mounted, with the paths.
    ///
    /// # Errors
    /// When the backend does not tell.
    pub fn mounted_containers(&self) -> Result<Vec<(String, String)>> {
        let of = self.kind.description();
        let call = self.call(of.mounted_containers, Substitutions::default());
        pairs(call, of.container_at)
    }

    /// The images that are mounted, by id, with the paths.
    ///
    /// # Errors
    /// When the backend does not tell.
    pub fn mounted_images(&self) -> Result<Vec<(String, String)>> {
        match self.kind.description().mounted_images {
            [] => Ok(Vec::new()),
            template => pairs(
                self.call(template, Substitutions::default()),
                ["/id", "/mountpoint"],
            ),
        }
    }

    /// Whether that may be mounted, by whomever: it is, or the backend does not tell.
    pub fn may_be_mounted(&self, what: &MountTarget) -> bool {
        match what {
            MountTarget::Image(id) => self.is_image_mounted(id).unwrap_or(true),
            MountTarget::Container(name) | MountTarget::Made(name) => {
                self.is_there(name).unwrap_or(true)
            }
        }
    }

    /// Where it keeps what it knows of containers.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn container_directory(&self) -> Result<Utf8PathBuf> {
        let of = self.kind.description();
        let call = self.call(of.info, Substitutions::default());
        let name = call.name();
        let value = json(&call.run_unguarded()?, &name)?;
        let [root, driver] = of
            .storage
            .map(|at| value.pointer(at).and_then(Value::as_str));
        match (root, driver) {
            (Some(root), Some(driver)) => {
                Ok(Utf8Path::new(root).join(format!("{driver}-containers")))
            }
            _ => bail!("'{name}' does not tell where the storage is"),
        }
    }
}

/// A word of the table with what it stands for.
fn filled(word: &str, values: Substitutions<'_>) -> String {
    let Some((before, (name, after))) = word
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return word.to_owned();
    };
    let value = match name {
        "image" => values.image,
        "name" => values.name,
        "file" => values.file,
        _ => return word.to_owned(),
    };
    format!("{before}{value}{after}")
}

/// Runs a call that prints a JSON array and gives what is at two places of each element.
fn pairs(call: Call, at: [&str; 2]) -> Result<Vec<(String, String)>> {
    let name = call.name();
    let printed = call.run_unguarded()?;
    if printed.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value = json(&printed, &name)?;
    let text = |element: &Value, at: &str| element.pointer(at)?.as_str().map(str::to_owned);
    let elements = value.as_array().into_iter().flatten();
    Ok(elements
        .filter_map(|e| Some((text(e, at[0])?, text(e, at[1])?)))
        .collect())
}

/// The last line that says anything: what else a backend prints comes before.
pub fn last_line(printed: &str) -> &str {
    let mut lines = printed.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty()).unwrap_or_default()
}

fn json(printed: &str, call: &str) -> Result<Value> {
    serde_json::from_str(printed).map_err(|e| {
        let begin: String = printed.chars().take(200).collect();
        Error::new(e).context(format!(
            "'{call}' printed what is not JSON: '{}'",
            begin.trim()
        ))
    })
}

fn text_at(value: &Value, pointer: &str, call: &str) -> Result<String> {
    match value.pointer(pointer).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => bail!("'{call}' does not tell the image's id"),
    }
}

/// The variables that choose the storage: what undoes later must have those of today
/// (containers-storage.conf(5), containers.conf(5)).
pub fn storage_environment() -> BTreeMap<String, String> {
    const NAMES: [&str; 6] = [
        "CONTAINERS_CONF",
        "CONTAINERS_STORAGE_CONF",
        "STORAGE_DRIVER",
        "STORAGE_OPTS",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
    ];
    let set = NAMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    set.collect()
}

#[cfg(test)]
mod tests;
