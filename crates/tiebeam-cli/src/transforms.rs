//! `tiebeam transforms`.

use std::fmt::Write as _;

use clap::Args;
use tiebeam::launch::Exit;
use tiebeam_yaml::catalog::{self, Inputs, Key, TransformType, Wants};
use tiebeam_yaml::transforms::inference;

use crate::output;

/// The command line of `tiebeam transforms`.
#[derive(Debug, Args)]
pub struct TransformsArgs {
    /// A transform, or a model handler.
    name: Option<String>,
}

/// Lists transforms, or tells of one.
pub fn transforms(args: &TransformsArgs) -> Exit {
    let text = match &args.name {
        None => list(),
        Some(name) => match (catalog::find(name), inference::handler_types().iter().find(|h| h.name == name))
        {
            (Some(kind), _) => describe(kind),
            (None, Some(handler)) => describe_handler(handler),
            (None, None) => {
                let problem = catalog::unknown_type(name, Default::default());
                output::stderr(&format!("error[{}]: {}\n", problem.code, problem.message));
                if let Some(help) = &problem.help {
                    output::stderr(&format!("  help: {help}\n"));
                }
                return Exit::BadUsage;
            }
        },
    };
    output::stdout(text.as_bytes());
    Exit::Ok
}

fn list() -> String {
    let types = catalog::types();
    let width = types.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for kind in types {
        let _ = writeln!(text, "{:width$}  {}", kind.name, kind.about);
    }
    text.push_str("\nchain, composite: transforms made of transforms\n");
    text
}

fn describe(kind: &TransformType) -> String {
    let mut text = format!("{}: {}\n", kind.name, kind.about);
    text.push_str(&match kind.inputs {
        Inputs::None => "  reads no input\n".to_owned(),
        Inputs::One => "  reads one input\n".to_owned(),
        Inputs::Beside(side) => {
            format!("  reads one input, and beside it one named `{side}` where it is given\n")
        }
        Inputs::Any => "  reads any number of inputs\n".to_owned(),
        Inputs::Named => "  reads two or more inputs, each by its name\n".to_owned(),
        Inputs::Tables => "  reads one input, or several by their names\n".to_owned(),
    });
    keys(kind.keys, &mut text);
    if kind.name == "RunInference" {
        text.push_str("\nmodel handlers:\n");
        for handler in inference::handler_types() {
            let _ = writeln!(text, "  {}: {}", handler.name, handler.about);
        }
        text.push_str("`tiebeam transforms HANDLER` lists a handler's keys\n");
    }
    text
}

fn describe_handler(handler: &inference::HandlerType) -> String {
    let mut text = format!("{}: {}\n", handler.name, handler.about);
    keys(handler.keys, &mut text);
    text.push_str("\nas all handlers:\n");
    keys(inference::COMMON, &mut text);
    text
}

fn keys(keys: &[Key], text: &mut String) {
    let keys: Vec<&Key> = keys.iter().filter(|key| !key.about.starts_with("not available")).collect();
    let width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for key in keys {
        let wants = match key.wants {
            Wants::Any => "",
            wants => wants.name(),
        };
        let required = if key.required { "required, " } else { "" };
        let kind = format!("({required}{wants})").replace(", )", ")").replace("()", "");
        let _ = writeln!(text, "  {:width$}  {} {kind}", key.name, key.about);
    }
}
