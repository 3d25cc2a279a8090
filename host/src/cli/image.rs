//! `imprint-host image`: a complete initramfs whose `/init` is the agent. Needs no state directory, and makes no payload.

use std::fmt::Write as _;

use imprint::hex;
use imprint::shown::line;
use zeroize::Zeroizing;

use super::args::image::ImageArgs;
use super::published::{ImageFile, ImageModule};
use super::{Cli, CliError, say};
use crate::image::{self, Wanted};
use crate::output::{Output, OutputError};

pub(super) fn image(cli: &Cli, arguments: &ImageArgs) -> Result<(), CliError> {
    // What is at the path is looked at before minutes are spent on the image.
    let output = Output::open(&arguments.output).map_err(CliError::Write)?;
    if !output.is_file() {
        let path = arguments.output.clone();
        return Err(CliError::Write(OutputError::Not { path, what: "no place for a file that is put there whole" }));
    }
    let made = image::make(&Wanted {
        kernel_modules: &arguments.kernel_modules,
        modules: &arguments.modules,
        only: arguments.only,
        firmware: arguments.firmware.as_deref(),
        agent: arguments.agent.as_deref(),
        site: arguments.site.as_deref(),
        network: arguments.network.as_deref(),
        key: arguments.key.as_deref(),
        bundle_key: arguments.bundle_key.as_deref(),
        words: arguments.words.as_deref(),
        next: arguments.next.as_deref(),
        added: &arguments.add,
        compress: arguments.compress,
    });
    let failed = |error| CliError::Image(Box::new(error));
    let mut made = made.map_err(failed)?;
    if let (true, Some(kernel)) = (arguments.iso, &arguments.kernel) {
        let (medium, warning) = image::medium(&made, kernel, &arguments.append).map_err(failed)?;
        made.bytes = Zeroizing::new(medium);
        made.warnings.extend(warning);
    }
    let staged = output.stage(&made.bytes).map_err(CliError::Write)?;
    if !made.private {
        // Boot loaders and servers read it.
        staged.readable().map_err(CliError::Write)?;
    }
    staged.finish(&made.bytes).map_err(CliError::Write)?;
    for warning in &made.warnings {
        say::warn(format_args!("{warning}"));
    }
    let shown = arguments.output.display().to_string();
    let modules: Vec<ImageModule<'_>> =
        made.modules.iter().map(|(name, bytes)| ImageModule { name, bytes: *bytes }).collect();
    let report = ImageFile {
        image: &shown,
        bytes: made.bytes.len(),
        unpacked: made.unpacked,
        sha256: hex::encode(&imprint::digest::sha256(&made.bytes)),
        kernel: &made.version,
        machine: made.machine.to_string(),
        agent: made.agent.0.display().to_string(),
        agent_bytes: made.agent.1,
        modules,
        started: &made.started,
        firmware: made.firmware,
        keys: &made.keys,
        warnings: &made.warnings,
    };
    let mut text = format!(
        "wrote {}{}: {}, unpacked {}\n",
        if arguments.iso { "the medium " } else { "" },
        line(&shown),
        mebibytes(made.bytes.len()),
        mebibytes(made.unpacked)
    );
    let _ = writeln!(text, "kernel   {} ({})", line(&made.version), made.machine);
    let _ = writeln!(text, "agent    {}, {}", line(&report.agent), mebibytes(made.agent.1));
    let total = made.modules.iter().map(|(_, bytes)| *bytes).sum();
    let _ = writeln!(text, "modules  {}, {}", made.modules.len(), mebibytes(total));
    if !made.started.is_empty() {
        let _ = writeln!(text, "loaded at the start: {}", line(&made.started.join(" ")));
    }
    if made.firmware > 0 {
        let _ = writeln!(text, "firmware {} files", made.firmware);
    }
    for key in &made.keys {
        let _ = writeln!(text, "{key} is a private key: everybody who can read the image has it; its mode is 0600");
    }
    say::either(cli, &report, &text)
}

fn mebibytes(bytes: usize) -> String {
    let tenths = bytes.saturating_mul(10).saturating_add(1 << 19) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_rounded() {
        for (bytes, shown) in [(0, "0.0 MiB"), (1 << 20, "1.0 MiB"), (3_124_736, "3.0 MiB"), (1_363_149, "1.3 MiB")] {
            assert_eq!(super::mebibytes(bytes), shown);
        }
    }
}
