"""Signed webhooks: subscriptions, deliveries in order, attempts on record, and where they may go."""
