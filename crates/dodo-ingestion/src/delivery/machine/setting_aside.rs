//! What is not billed, and has to be written among the dead letters.
//!
//! What cannot be written there is decided all the same: it is not sent again, and written as soon as that
//! is possible.

use super::{
    Action, AlarmKind, Cause, Delivery, ErrorKind, Item, Now, STORAGE_RETRY_MS, Sent, Token,
};
use crate::planted::{Fault, is_planted};

impl Delivery {
    pub(super) fn set_aside_what_is_late(
        &mut self,
        records: &mut Vec<Sent>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let base = self.skew.base(now.wall);
        let late: Vec<Sent> =
            records.extract_if(.., |sent| base.is_late(sent.item.meta.occurred_at)).collect();
        for sent in late {
            let message = "older than 55 minutes, of the hour that the billing API takes, and \
                           late = \"dead_letter\" was chosen";
            self.set_aside(sent, Cause::new(ErrorKind::Rejected, None, message), now, actions);
        }
    }

    /// Sets a record aside; after a look-up, if it may be billed.
    pub(super) fn set_aside(
        &mut self,
        sent: Sent,
        cause: Cause,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if is_planted(Fault::SetAsideWithoutALookup) {
            let item = Item { unanswered: None, ..sent.item };
            self.set_aside_now(Sent { item, ..sent }, cause, actions);
        } else if sent.item.unanswered.is_some() {
            self.look_up_before_setting_aside(sent, cause, now);
        } else {
            self.set_aside_now(sent, cause, actions);
        }
    }

    pub(super) fn set_aside_now(
        &mut self,
        sent: Sent,
        mut cause: Cause,
        actions: &mut Vec<Action>,
    ) {
        cause.attempts = sent.item.attempts;
        cause.uncertain = sent.item.unanswered.is_some();
        self.write(sent, cause, actions);
    }

    fn write(&mut self, sent: Sent, cause: Cause, actions: &mut Vec<Action>) {
        let token = self.token();
        actions.push(Action::SetAside { token, record: sent.at(), cause: cause.clone() });
        self.setting_aside.insert(token, (cause, sent));
    }

    /// A dead letter was written, or could not be.
    pub(super) fn written(&mut self, token: Token, ok: bool, now: Now, actions: &mut Vec<Action>) {
        let Some((cause, sent)) = self.setting_aside.remove(&token) else { return };
        if ok {
            let message = format!("a call was set aside among the dead letters: {}", cause.message);
            actions.push(Action::Alarm { kind: AlarmKind::DeadLettered, message });
        } else {
            self.unwritten.push((cause, sent));
            self.unwritten_not_before = now.mono + STORAGE_RETRY_MS;
        }
    }

    /// Has all written that could not be, when it is time; else says when that is.
    pub(super) fn write_again(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.unwritten.is_empty() {
            return;
        }
        if now.mono < self.unwritten_not_before {
            self.wake_at = Some(self.unwritten_not_before);
            return;
        }
        for (cause, sent) in std::mem::take(&mut self.unwritten) {
            self.write(sent, cause, actions);
        }
    }
}
