//! Waits until the line's node may be switched on. Meanwhile the host sends no frames and ignores those that it reads: only
//! the node after the power-on counts.

use std::pin::pin;

use imprint::line::{Host, Nonce, Shape, Wire};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::Session;
use crate::inject::power::Turn;
use crate::inject::transport::Line;
use crate::talk::Office;

impl<'a> Session<'a> {
    /// Waits for this node's turn. Reads the line meanwhile: an unread line stalls, and a broken one must be open again
    /// before the power is switched. The window for HELLO starts anew afterwards.
    pub(super) async fn turn(&mut self, line: &mut Line) -> Result<Turn<'a>, String> {
        let shared = self.shared;
        let mut turn = pin!(shared.turns.turn());
        tokio::select! {
            biased;
            turn = &mut turn => return Ok(turn),
            () = std::future::ready(()) => self.tell("waiting", &format!("for its turn: {}", shared.turns.pace())),
        }
        // This end only separates frames from console output. It answers nothing.
        let mut deaf =
            Wire::new(Host::new(Nonce([0; 8]), false, Shape::default()), self.job.line.baud()).keeping_text();
        let mut buffer = [0; 2048];
        let ended = loop {
            tokio::select! {
                turn = &mut turn => break Ok(turn),
                read = line.read(&mut buffer) => match read {
                    Ok(0) => break Err(super::CLOSED.to_owned()),
                    Ok(count) => {
                        deaf.push(buffer.get(..count).unwrap_or_default(), shared.now());
                        drop(deaf.poll(shared.now()));
                        let _ = self.keep(&deaf.text());
                    }
                    Err(error) => break Err(error.to_string()),
                },
            }
        };
        self.deadline = Instant::now() + shared.config.window;
        ended
    }
}
