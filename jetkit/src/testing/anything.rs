//! Another service's entity, for tests of who reads its events.

/// Declares an aggregate without rules: its commands are events, and whatever a test says happened, happened.
///
/// For the events of an entity whose rules are another service's. The test crate needs `serde`.
///
/// ```
/// # use jetkit::{Aggregate as _, EntityId, Event};
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
/// # pub struct LampLit { lamp_id: EntityId }
/// # impl Event for LampLit { const TYPE: &'static str = "lamp.lit"; fn entity_id(&self) -> &EntityId { &self.lamp_id } }
/// # jetkit::events! { pub enum LampEvent { Lit(LampLit) } }
/// jetkit::testing::records_anything!(AnyLamp, "lamp", LampEvent);
///
/// let lit = LampEvent::from(LampLit { lamp_id: EntityId::new("hall").unwrap() });
/// // On a log: `log.store::<AnyLamp>().execute(lit.entity_id(), &lit, &cause)`.
/// assert_eq!(AnyLamp.decide(&lit).unwrap(), [lit]);
/// ```
#[macro_export]
#[doc(hidden)] // its place is `testing`
macro_rules! records_anything {
    ($name:ident, $entity:literal, $event:ty) => {
        #[doc = concat!("Any ", $entity, ": whatever a test says happened, happened.")]
        #[derive(Debug, Clone, Default, ::serde::Serialize, ::serde::Deserialize)]
        struct $name;

        impl $crate::Aggregate for $name {
            const ENTITY: &'static str = $entity;
            type Event = $event;
            type Command = $event;
            type Rejection = ::std::convert::Infallible;

            fn decide(
                &self,
                happened: &$event,
            ) -> ::std::result::Result<::std::vec::Vec<$event>, Self::Rejection> {
                ::std::result::Result::Ok(::std::vec![::std::clone::Clone::clone(happened)])
            }

            fn apply(&mut self, _: &$event) {}
        }
    };
}
