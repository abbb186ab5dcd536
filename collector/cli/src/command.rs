//! ⇄ From a command line to what it does. Each command asks the collector and shows the answer.

mod ask;
mod feed;
mod promqltest;
mod query;
mod rules;
mod up;

use std::time::SystemTime;

use tocsin_shared::time::Timestamp;
use tokio::runtime::{Builder, Runtime};

use crate::arguments::{Arguments, Command, FeedCommand, Global, RulesCommand, Up};
use crate::client::Client;
use crate::credential::{self, Connection, Places};
use crate::failure::Failure;
use crate::screen::{Format, Screen};

/// What commands share: the connection's settings and the screen.
#[derive(Clone, Debug)]
pub struct Context {
    pub global: Global,
    pub screen: Screen,
    pub places: Places,
}

impl Context {
    fn connection(&self) -> Result<Connection, Failure> {
        Ok(credential::find(&self.global, &self.places)?)
    }

    async fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.connection()?).await
    }
}

/// Does what the command line says.
pub fn run(Arguments { global, command }: Arguments) -> Result<(), Failure> {
    let screen = Screen::stdout(global.output, now());
    let command = command.unwrap_or_else(|| Command::Up(Up::default()));
    if matches!(global.output, Format::Csv | Format::Plain) && !matches!(command, Command::Query(_)) {
        return Err(Failure::Usage(
            "csv and plain are forms of `tocsin query`; use -o table or -o json here".into(),
        ));
    }
    let context = Context { global, screen, places: Places::from_env() };
    match command {
        Command::Up(up) => up::up(&context, up),
        Command::Rules(RulesCommand::Check { files }) => rules::check(&files, &context.screen),
        Command::Top(top) => {
            let Context { screen: Screen { format, style }, .. } = context;
            small_runtime()?.block_on(crate::top::top(context.connection()?, top, format, style))
        }
        Command::PromqlTest(test) => promqltest::run(&test, &context.screen),
        Command::Feed(FeedCommand::Tail(tail)) => small_runtime()?.block_on(feed::tail(&context, tail)),
        command => small_runtime()?.block_on(ask::ask(&context, command)),
    }
}

/// One call and its answer need no second thread.
fn small_runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Part { part: "tokio", reason: error.to_string() })
}

/// The wall clock; before 1970 it is the epoch.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().plus(since)
}
