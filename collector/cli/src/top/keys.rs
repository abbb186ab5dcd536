//! What a key does.
//!
//! Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::Model;
use super::order::{By, Order};

/// The longest text to filter by.
const TEXT_MAX: usize = 100;

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Stay,
    Leave,
}

/// Does what a key says.
pub(super) fn act(key: KeyEvent, order: &mut Order, model: &Model) -> Act {
    if key.kind == KeyEventKind::Release {
        return Act::Stay;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if control => return Act::Leave,
        code if order.typing => typed(code, order),
        KeyCode::Char('q') => return Act::Leave,
        code => pressed(code, order, model),
    }
    Act::Stay
}

fn typed(code: KeyCode, order: &mut Order) {
    match code {
        KeyCode::Esc => (order.typing, order.text) = (false, String::new()),
        KeyCode::Enter => order.typing = false,
        KeyCode::Backspace => drop(order.text.pop()),
        KeyCode::Char(c) if order.text.len() < TEXT_MAX => order.text.push(c),
        _ => {}
    }
    order.offset = 0;
}

fn pressed(code: KeyCode, order: &mut Order, model: &Model) {
    let page = isize::try_from(order.page.max(1)).unwrap_or(isize::MAX);
    match code {
        KeyCode::Up | KeyCode::Char('k') => order.step(model, -1),
        KeyCode::Down | KeyCode::Char('j') => order.step(model, 1),
        KeyCode::PageUp => order.step(model, -page),
        KeyCode::PageDown | KeyCode::Char(' ') => order.step(model, page),
        KeyCode::Home | KeyCode::Char('g') => order.step(model, isize::MIN),
        KeyCode::End | KeyCode::Char('G') => order.step(model, isize::MAX),
        KeyCode::Enter => {
            order.step(model, 0); // The details stay with this host, wherever it moves.
            order.details = !order.details;
        }
        KeyCode::Esc if order.details => order.details = false,
        KeyCode::Esc => (order.text, order.env) = (String::new(), None),
        KeyCode::Char('/') => order.typing = true,
        KeyCode::Char('e') => order.next_env(),
        KeyCode::Char('r') => order.reversed = !order.reversed,
        KeyCode::Char(c) => {
            if let Some(by) = sorted_by(c) {
                order.sort(by);
            }
        }
        _ => {}
    }
}

fn sorted_by(key: char) -> Option<By> {
    Some(match key {
        'p' => By::Problems,
        'n' => By::Name,
        'l' => By::Load,
        'c' => By::Cpu,
        'm' => By::Memory,
        'f' => By::Filesystem,
        'd' => By::Busy,
        'w' => By::Network,
        'a' => By::Alerts,
        _ => return None,
    })
}
