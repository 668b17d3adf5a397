//! Pulls an image into a store, for measurements: `pull FOLDER NAME`.

#![expect(clippy::print_stdout, reason = "says what it pulled")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use glowplug_image::Store;
use glowplug_image::pull::{Options, ProgressSender, Puller};
use glowplug_image::source::Source;
use glowplug_image::source::credentials::Lookup;
use glowplug_image::source::registry::{self, Registry};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, name] = arguments.as_slice() else {
        return Err("usage: pull FOLDER NAME".into());
    };
    let reference: glowplug_image::Reference = name.parse()?;
    let credentials = Lookup::of_environment().find(reference.registry())?;
    let source: Arc<dyn Source> =
        Arc::new(Registry::new(reference, credentials, &registry::Options::default())?);
    let puller = Puller::new(Store::open(Path::new(folder))?, Options::default());
    let image = puller.pull(&source, &ProgressSender::none()).await?;
    println!("{}: {} bytes, {} as stored", image.digest, image.bytes, image.compressed_bytes);
    // Without waiting for the disk, as a start would go on; the store knows what is not synced.
    std::process::exit(0);
}
