//! `glowplug queue export`, `import` and `backup`: from and to a running node, or the data of one that does
//! not run.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use glowplug_api::control::{BackupRequest, BackupView, MovedView};
use glowplug_node::config::AppName;
use glowplug_node::queue_export::{self, Import, Lines};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use zstd::stream::write::Encoder;

use crate::cli::Context;
use crate::commands::apps::parse_name;
use crate::commands::target::{Target, is_stdout};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Where to write to; compressed if it ends in `.zst`; `-` for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only the requests of this app
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Read the data of a node that does not run
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// What `glowplug queue export` wrote; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Add to the data of a node that does not run
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// A new file; the node writes it, so it is one of the node's machine
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Copy the data of a node that does not run
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Bytes read from a file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces read that have not been sent yet; then the reading waits.
const PIECES_WAITING_MAX: usize = 8;
const ZSTD_LEVEL: i32 = 3;
/// The first bytes of every compressed file.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Lines of an export that are no requests: its head and its end.
const FRAME_LINES: u64 = 2;
/// Between two redraws of the progress.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn export(args: &ExportArgs, context: &Context) -> Result<(), Failure> {
    let app = args.app.as_deref().map(parse_name).transpose()?;
    let app = app.as_ref().map(AppName::as_str);
    let target = Target::open(&args.file, progress(context.output, "exporting"))?;
    let mut out = Sink::new(target, is_compressed(&args.file))?;
    if let Some(dir) = &args.data_dir {
        export_stopped(dir, app, &mut out).await?;
    } else {
        let query: Vec<(&str, &str)> = app.map(|app| ("app", app)).into_iter().collect();
        let each = |bytes: &[u8]| out.take(bytes);
        context.client()?.bytes(&["queue", "export"], &query, "", |_| {}, each).await?;
    }
    let requests = out.lines.saturating_sub(FRAME_LINES);
    out.finish()?;
    if !is_stdout(&args.file) {
        let (moved, file) = (MovedView { requests, known: 0 }, args.file.display());
        context
            .output
            .value(&moved, |moved| format!("{} requests are in {file}", moved.requests))?;
    }
    Ok(())
}

async fn export_stopped(data_dir: &Path, app: Option<&str>, out: &mut Sink) -> Result<(), Failure> {
    let store = queue_export::open_stopped(data_dir).map_err(unusable)?;
    let mut failed = None;
    let to = |line: Vec<u8>| {
        failed = out.take(&line).err();
        std::future::ready(failed.is_none())
    };
    let exported = queue_export::export(&*store, app, to).await.map_err(unusable);
    store.close().await;
    exported?;
    failed.map_or(Ok(()), Err)
}

/// What is written, compressed or not.
enum Writer {
    Plain(Target),
    Compressed(Box<Encoder<'static, Target>>),
}

struct Sink {
    writer: Writer,
    lines: u64,
}

impl Sink {
    fn new(target: Target, compressed: bool) -> Result<Self, Failure> {
        let writer = if compressed {
            let mut encoder = Encoder::new(target, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            Writer::Compressed(Box::new(encoder))
        } else {
            Writer::Plain(target)
        };
        Ok(Self { writer, lines: 0 })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.lines += bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
        match &mut self.writer {
            Writer::Plain(target) => target.write_all(bytes)?,
            Writer::Compressed(encoder) => encoder.write_all(bytes)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<u64, Failure> {
        let target = match self.writer {
            Writer::Plain(target) => target,
            Writer::Compressed(encoder) => encoder.finish()?,
        };
        target.progress.finish_and_clear();
        target.finish()
    }
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "zst")
}

pub(crate) async fn import(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    let progress = progress(context.output, "importing");
    let pieces = read_pieces(&args.file, &progress)?;
    let moved = match &args.data_dir {
        Some(dir) => import_stopped(dir, pieces).await,
        None => context.client()?.upload(&["queue", "import"], pieces).await,
    };
    progress.finish_and_clear();
    context.output.value(&moved?, |moved| match moved.known {
        0 => format!("{} requests are taken in", moved.requests),
        known => format!("{} requests are taken in, {known} were there already", moved.requests),
    })
}

async fn import_stopped(
    data_dir: &Path,
    pieces: impl Stream<Item = io::Result<Vec<u8>>>,
) -> Result<MovedView, Failure> {
    let store = queue_export::open_stopped(data_dir).map_err(unusable)?;
    let (mut lines, mut import) = (Lines::default(), Import::new(&*store));
    let mut pieces = std::pin::pin!(pieces);
    let take_in = async {
        while let Some(piece) = pieces.next().await {
            lines.push(&piece.map_err(Failure::environment)?).map_err(Failure::user)?;
            while let Some(line) = lines.next_line() {
                import.line(&line).await.map_err(Failure::user)?;
            }
        }
        if let Some(rest) = lines.rest() {
            import.line(&rest).await.map_err(Failure::user)?;
        }
        import.finish().map_err(Failure::user)
    };
    let moved = take_in.await;
    store.close().await;
    let moved = moved?;
    Ok(MovedView { requests: moved.requests, known: moved.known })
}

/// The content of a file, piece by piece; compressed or not, whatever its name.
fn read_pieces(
    file: &Path,
    progress: &ProgressBar,
) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static, Failure> {
    let unreadable =
        |error: io::Error| Failure::user(format!("cannot read {}: {error}", file.display()));
    let source: Box<dyn Read + Send> = if is_stdout(file) {
        Box::new(io::stdin())
    } else {
        let file = File::open(file).map_err(unreadable)?;
        progress.set_length(file.metadata().map_err(unreadable)?.len());
        Box::new(file)
    };
    let mut source = progress.wrap_read(source);
    let mut begin = Vec::new();
    source.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut begin).map_err(unreadable)?;
    let is_compressed = begin == ZSTD_MAGIC;
    let source = io::Cursor::new(begin).chain(source);
    let mut source: Box<dyn Read + Send> = if is_compressed {
        Box::new(zstd::stream::read::Decoder::new(source).map_err(unreadable)?)
    } else {
        Box::new(source)
    };
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    // It ends with the file, or when nobody takes its pieces any more.
    drop(tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = source.read(&mut piece).map(|bytes| {
                piece.truncate(bytes);
                piece
            });
            let is_last = read.as_ref().map_or(true, Vec::is_empty);
            if read.as_ref().is_ok_and(Vec::is_empty) || sender.blocking_send(read).is_err() {
                return;
            }
            if is_last {
                return;
            }
        }
    }));
    Ok(stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) }))
}

pub(crate) async fn backup(args: &BackupArgs, context: &Context) -> Result<(), Failure> {
    let file = std::path::absolute(&args.file)
        .map_err(|error| Failure::user(format!("{}: {error}", args.file.display())))?;
    let progress = progress(context.output, "copying");
    let copied = if let Some(dir) = &args.data_dir {
        backup_stopped(dir, &file).await
    } else {
        let request = BackupRequest { path: file.display().to_string() };
        context.client()?.copy(&["queue", "backup"], &request).await
    };
    progress.finish_and_clear();
    context.output.value(&copied?, |copied| {
        let mebibytes = copied.bytes.div_ceil(1 << 20);
        format!("the database is copied to {} ({mebibytes} MiB)", copied.path)
    })
}

async fn backup_stopped(data_dir: &Path, file: &Path) -> Result<BackupView, Failure> {
    let store = queue_export::open_stopped(data_dir).map_err(unusable)?;
    let copied = store.backup(file.to_owned()).await;
    store.close().await;
    copied.map_err(unusable)?;
    let bytes = file.metadata().map_or(0, |data| data.len());
    Ok(BackupView { path: file.display().to_string(), bytes })
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Environment(error.into())
}

fn progress(output: Output, doing: &'static str) -> ProgressBar {
    if output.is_json() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}";
    let progress = ProgressBar::no_length()
        .with_style(ProgressStyle::with_template(style).expect("it is a constant that works"))
        .with_message(doing);
    progress.enable_steady_tick(DRAW_INTERVAL);
    progress
}
