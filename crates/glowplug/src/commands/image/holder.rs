//! Who has the images: the node that runs on the data directory, or nobody but this command.

use std::collections::HashSet;
use std::path::PathBuf;

use glowplug_api::control::ImageView;
use glowplug_image::{Digest, Store};
use glowplug_node::config::{Config, Program};
use glowplug_node::image_views::{self, Names};

use crate::cli::Context;
use crate::client::Client;
use crate::failure::Failure;

pub(super) enum Holder {
    Node(Client),
    /// No node runs: the store is opened here, and nobody else can until this is dropped.
    Nobody(Box<Shelf>),
}

/// A store and the config of the node that it is for.
pub(super) struct Shelf {
    pub(super) store: Store,
    pub(super) config: Config,
}

impl Holder {
    pub(super) fn find(context: &Context) -> Result<Self, Failure> {
        if context.names_server() {
            return Ok(Self::Node(context.client()?));
        }
        let config = context.config(Vec::new())?.config;
        if glowplug_node::is_running(&config.node.data_dir) {
            return Ok(Self::Node(context.client()?));
        }
        let folder = folder(&config);
        if !folder.exists() {
            let folder = folder.display();
            return Err(Failure::environment(format!(
                "no node runs, and {folder} has no images\n  help: name another config with --config, or a node \
                 with --server"
            )));
        }
        let store = Store::open(&folder).map_err(unusable)?;
        Ok(Self::Nobody(Box::new(Shelf { store, config })))
    }
}

impl Shelf {
    pub(super) fn views(&self) -> Result<Vec<ImageView>, Failure> {
        let names = Names::of(&self.store);
        let images = self.store.images().map_err(unusable)?;
        let view = |image: &glowplug_image::store::Image| {
            image_views::image(&self.store, &names, image, self.apps(&image.digest))
        };
        Ok(images.iter().map(view).collect())
    }

    /// The apps of the config whose image this is, as far as is known without asking registries.
    pub(super) fn apps(&self, digest: &Digest) -> Vec<String> {
        let apps = self.wanted().filter(|(_, wanted)| wanted == digest);
        apps.map(|(app, _)| app).collect()
    }

    pub(super) fn wanted_digests(&self) -> HashSet<Digest> {
        self.wanted().map(|(_, digest)| digest).collect()
    }

    fn wanted(&self) -> impl Iterator<Item = (String, Digest)> {
        self.config.apps.iter().filter_map(|app| {
            let Program::Image(program) = &app.program else { return None };
            let named = self.store.named(&program.image.to_string())?;
            Some((app.name.to_string(), named.digest))
        })
    }
}

fn folder(config: &Config) -> PathBuf {
    config.node.data_dir.join(glowplug_node::IMAGES_DIR)
}

pub(super) fn unusable(error: glowplug_image::store::Error) -> Failure {
    Failure::Environment(error.into())
}
