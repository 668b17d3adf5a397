//! `glowplug image show`

use std::fmt::Write;

use glowplug_api::control::{ImageDetailView, ImageLayerView, ImageView};
use glowplug_image::config::ImageConfig;
use glowplug_node::image_views;
use indicatif::HumanBytes;

use super::holder::{Holder, unusable};
use super::{meant, short};
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::{Output, age, plain};

pub(super) async fn run(wanted: &str, context: &Context) -> Result<(), Failure> {
    let detail = match Holder::find(context)? {
        Holder::Node(client) => {
            let images: Vec<ImageView> = client.get(&["images"], &[]).await?;
            client.get(&["images", &meant(&images, wanted)?.digest], &[]).await?
        }
        Holder::Nobody(shelf) => {
            let images = shelf.views()?;
            let digest = &meant(&images, wanted)?.digest;
            let digest = digest.parse().map_err(Failure::environment)?;
            let image = shelf.store.image(&digest).map_err(unusable)?;
            let image = image.ok_or_else(|| Failure::environment("the image has just gone"))?;
            image_views::detail(&shelf.store, &image, shelf.apps(&digest)).map_err(unusable)?
        }
    };
    context.output.value(&detail, |detail| text(context.output, detail))
}

fn text(output: Output, detail: &ImageDetailView) -> String {
    let image = &detail.image;
    let used = image.last_used_micros.map_or_else(|| "not known".to_owned(), |at| age(at) + " ago");
    let or_none =
        |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let mut lines = vec![
        ("digest", image.digest.clone()),
        ("names", or_none(&image.names)),
        ("apps", or_none(&image.apps)),
        ("last use", if detail.in_use { "now, by a runner".to_owned() } else { used }),
        ("download", HumanBytes(image.compressed_bytes).to_string()),
        ("files", HumanBytes(image.bytes).to_string()),
        (
            "on disk",
            format!(
                "{}, of which {} would go with it",
                HumanBytes(detail.disk_bytes),
                HumanBytes(detail.own_bytes)
            ),
        ),
    ];
    lines.extend(config(&detail.config));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:10} {}", plain(&value));
    }
    let rows = detail.layer_list.iter().enumerate().map(layer_row).collect();
    let header = ["LAYER", "DIGEST", "DOWNLOAD", "FILES", "NUMBER", "ALSO IN"];
    let _ = write!(text, "\n{}\n", output.table(&header, rows, "it has no layers"));
    if !detail.shared.is_empty() {
        let row = |shared: &glowplug_api::control::ImageShareView| {
            vec![
                short(&shared.digest),
                shared.names.join(", "),
                HumanBytes(shared.bytes).to_string(),
            ]
        };
        let rows = detail.shared.iter().map(row).collect();
        let _ = write!(text, "\n{}\n", output.table(&["SHARES WITH", "NAMES", "BYTES"], rows, ""));
    }
    text
}

fn layer_row((number, layer): (usize, &ImageLayerView)) -> Vec<String> {
    let download = layer.compressed_bytes.map(|bytes| HumanBytes(bytes).to_string());
    vec![
        (number + 1).to_string(),
        short(&layer.digest),
        download.unwrap_or_default(),
        HumanBytes(layer.bytes).to_string(),
        layer.files.to_string(),
        match layer.other_images {
            0 => String::new(),
            1 => "1 image".to_owned(),
            images => format!("{images} images"),
        },
    ]
}

/// What the image would run, and how.
fn config(value: &serde_json::Value) -> Vec<(&'static str, String)> {
    let Ok(config) = serde_json::from_value::<ImageConfig>(value.clone()) else {
        return Vec::new();
    };
    let ports: Vec<String> = config.exposed_ports.keys().cloned().collect();
    let said = [
        ("runs", config.argv().join(" ")),
        ("user", config.user),
        ("directory", config.working_dir),
        ("ports", ports.join(", ")),
        ("env", config.env.join(" ")),
        ("stops on", config.stop_signal),
    ];
    said.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
