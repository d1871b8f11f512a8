//! The statements of functions: what is assigned on every way, what is returned.

use super::{Checker, Local};
use crate::expression::evaluate::Step;
use crate::expression::tree::Statement;

impl Checker<'_> {
    /// The steps, and whether they always end in `return` or `raise`.
    pub(super) fn statements(&mut self, statements: &[Statement]) -> (Vec<Step>, bool) {
        let mut steps = Vec::with_capacity(statements.len());
        let mut ends = false;
        for statement in statements {
            match statement {
                Statement::Assign { name, value } => {
                    let (code, typed) = self.expr(value);
                    let slot = match self.locals.iter_mut().find(|local| local.name == *name) {
                        Some(local) => {
                            (local.typed, local.certain) = (typed, true);
                            local.slot
                        }
                        None => {
                            let slot = self.slot_of(name);
                            self.locals.push(Local { name: name.clone(), slot, typed, certain: true });
                            slot
                        }
                    };
                    steps.push(Step::Assign(slot, code));
                }
                Statement::Return(value) => {
                    let (code, typed) = self.expr(value);
                    self.returns = Some(match self.returns.take() {
                        Some(before) => before.join(&typed),
                        None => typed,
                    });
                    steps.push(Step::Return(code));
                    ends = true;
                }
                Statement::Raise { exception, message, span } => {
                    let message = message.as_ref().map(|message| self.expr(message).0);
                    steps.push(Step::Raise(exception.clone(), message, *span));
                    ends = true;
                }
                Statement::If { condition, then, otherwise } => {
                    let (condition, _) = self.expr(condition);
                    let before = self.locals.clone();
                    let (then, then_ends) = self.statements(then);
                    let after_then = std::mem::replace(&mut self.locals, before);
                    let (otherwise, otherwise_ends) = self.statements(otherwise);
                    self.merge(after_then, then_ends, otherwise_ends);
                    steps.push(Step::If(condition, then, otherwise));
                    ends = ends || (then_ends && otherwise_ends);
                }
            }
        }
        (steps, ends)
    }

    /// What is known after an `if`: both ways together, but for a way that never comes here.
    fn merge(&mut self, then: Vec<Local>, then_ends: bool, otherwise_ends: bool) {
        if otherwise_ends {
            self.locals = then;
            return;
        }
        if then_ends {
            return;
        }
        for other in &mut self.locals {
            other.certain &= then.iter().any(|local| local.name == other.name);
        }
        for local in then {
            match self.locals.iter_mut().find(|other| other.name == local.name) {
                Some(other) => {
                    other.typed = other.typed.join(&local.typed);
                    other.certain &= local.certain;
                }
                None => self.locals.push(Local { certain: false, ..local }),
            }
        }
    }
}
