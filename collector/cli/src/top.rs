//! ⇄ `tocsin top`: all hosts on one live screen, problems first.
//!
//! `source` follows the collector, `model` holds what it told, `order` says which rows and in what order, `keys` what a key
//! does, `draw` how it looks; only here and in `source` is anything but data. Promise: whatever ends it, a signal, an
//! error or a panic, the terminal is as it was before. It draws at most ten times a second, however much comes.

mod draw;
mod keys;
mod metric;
mod model;
mod order;
mod source;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event};
use tocsin_proto::pb;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use unicode_width::UnicodeWidthStr as _;

use crate::arguments::Top;
use crate::command::now;
use crate::credential::Connection;
use crate::failure::Failure;
use crate::screen::{Format, Style, write_out};
use draw::Looks;
use keys::Act;
use model::{Message, Model};
use order::Order;

pub use order::By;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(100);
/// Messages that wait to be taken in; the collector's streams wait behind them.
const MESSAGES: usize = 256;
const KEYS: usize = 64;
/// How long a thread waits for a key before it looks whether anybody still wants one.
const KEY_WAIT: Duration = Duration::from_millis(200);
/// How long `--once` waits for all parts of its screen.
const ONCE_WAIT: Duration = Duration::from_secs(15);
/// Width of `--once` without a terminal.
const ONCE_WIDTH: u16 = 120;

/// What is on the screen.
struct Screen {
    model: Model,
    order: Order,
    looks: Looks,
}

/// Shows the screen until the user leaves.
pub(crate) async fn top(
    connection: Connection,
    top: Top,
    format: Format,
    style: Style,
) -> Result<(), Failure> {
    let (messages, mut inbox) = mpsc::channel(MESSAGES);
    let (focus, focused) = watch::channel(None);
    let mut order = Order { text: top.filter.unwrap_or_default(), ..Order::default() };
    order.env = top.env.map(|env| crate::view::word(pb::Env::from(env).as_str_name(), "ENV_"));
    order.by = top.sort;
    let looks = Looks { colour: style.colour, unicode: style.unicode };
    let screen = Screen { model: Model::default(), order, looks };
    let following = source::follow(connection, messages, focused);
    if top.once || format == Format::Json {
        tokio::select! {
            ended = following => ended,
            shown = once(screen, &mut inbox, format, style.width) => shown,
        }
    } else {
        tokio::select! {
            ended = following => ended,
            shown = live(screen, &mut inbox, &focus) => shown,
        }
    }
}

/// Gathers one screen and prints it.
async fn once(
    mut screen: Screen,
    inbox: &mut mpsc::Receiver<Message>,
    format: Format,
    width: Option<usize>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + ONCE_WAIT;
    while !screen.model.is_whole() {
        tokio::select! {
            message = inbox.recv() => match message {
                Some(Message::Lost(reason)) => return Err(tonic::Status::unavailable(reason).into()),
                Some(message) => screen.model.take(message),
                None => break,
            },
            () = sleep_until(deadline) => return Err(Failure::Late { seconds: ONCE_WAIT.as_secs() }),
        }
    }
    if format == Format::Json {
        return write_out(&crate::screen::json(&screen.model.document(&screen.order), true)?);
    }
    let width = width.and_then(|width| u16::try_from(width).ok()).unwrap_or(ONCE_WIDTH);
    write_out(&page(&mut screen, width))
}

/// All rows on one page of plain text.
fn page(screen: &mut Screen, width: u16) -> String {
    let rows = u16::try_from(screen.order.rows(&screen.model).len()).unwrap_or(u16::MAX);
    let height = rows.saturating_add(draw::ROWS_AROUND - 1).max(draw::ROWS_AROUND);
    let looks = Looks { colour: false, ..screen.looks };
    let mut terminal =
        Terminal::new(TestBackend::new(width, height)).expect("a screen in memory does not fail");
    let drawn = terminal.draw(|frame| {
        draw::draw(frame, &screen.model, &mut Order { once: true, ..screen.order.clone() }, looks, now())
    });
    drawn.expect("a screen in memory does not fail");
    text_of(terminal.backend().buffer())
}

/// What is on a screen, line by line, without the blanks at the ends.
fn text_of(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width).max(1)) {
        let (mut line, mut hidden) = (String::new(), 0);
        for cell in row {
            if hidden == 0 {
                line.push_str(cell.symbol());
                hidden = cell.symbol().width().saturating_sub(1); // A wide character stands over the next cell.
            } else {
                hidden -= 1;
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Restores the terminal when dropped; for a panic there is ratatui's hook, too.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(
    mut screen: Screen,
    inbox: &mut mpsc::Receiver<Message>,
    focus: &watch::Sender<Option<String>>,
) -> Result<(), Failure> {
    let mut terminal = ratatui::try_init().map_err(|_| {
        Failure::Usage(
            "`tocsin top` needs a terminal; for a screen as text there is `tocsin top --once`".into(),
        )
    })?;
    let _restore = Restore;
    let mut keys = read_keys();
    let mut ends = Terminations::new()?;
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut dirty, mut drawn_at) = (true, Instant::now());
    loop {
        tokio::select! {
            () = ends.next() => return Ok(()),
            key = keys.recv() => {
                let Some(key) = key else { return Ok(()) };
                if let Event::Key(key) = key && keys::act(key, &mut screen.order, &screen.model) == Act::Leave {
                    return Ok(());
                }
                let wanted = screen.order.focus(&screen.model);
                focus.send_if_modified(|focus| std::mem::replace(focus, wanted.clone()) != wanted);
                dirty = true;
            }
            message = inbox.recv() => {
                let Some(message) = message else { return Ok(()) };
                screen.model.take(message);
                dirty = true;
            }
            _ = frames.tick() => {
                // Ages move on also when nothing comes.
                if dirty || drawn_at.elapsed() >= Duration::from_secs(1) {
                    let Screen { model, order, looks } = &mut screen;
                    terminal.draw(|frame| draw::draw(frame, model, order, *looks, now())).map_err(Failure::Output)?;
                    (dirty, drawn_at) = (false, Instant::now());
                }
            }
        }
    }
}

/// Keys and changes of size, read by a thread: reading blocks.
fn read_keys() -> mpsc::Receiver<Event> {
    let (send, keys) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while !send.is_closed() {
            match event::poll(KEY_WAIT) {
                Ok(false) => {}
                Ok(true) => match event::read() {
                    Ok(event) => {
                        if send.blocking_send(event).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                Err(_) => return, // Without a keyboard there is nobody: dropping the sender ends it.
            }
        }
    });
    keys
}

/// Signals that end it.
struct Terminations([Signal; 3]);

impl Terminations {
    fn new() -> Result<Self, Failure> {
        let of =
            |kind| signal(kind).map_err(|error| Failure::Part { part: "signals", reason: error.to_string() });
        let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
        let [terminate, hangup, interrupt] = kinds.map(of);
        Ok(Self([terminate?, hangup?, interrupt?]))
    }

    async fn next(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
