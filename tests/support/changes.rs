//! The calls that change something, by the names that AWS gives them.

use taskset_guardian::sandbox::api::Call;

/// The operation, if it changes a service or a load balancer.
pub(crate) fn change(call: &Call) -> Option<&'static str> {
    match call {
        Call::UpdateTaskSet { .. } => Some("UpdateTaskSet"),
        Call::SetPrimary { .. } => Some("UpdateServicePrimaryTaskSet"),
        Call::ModifyRule { .. } => Some("ModifyRule"),
        Call::ModifyListener { .. } => Some("ModifyListener"),
        Call::DeleteTaskSet { .. } => Some("DeleteTaskSet"),
        _ => None,
    }
}
