"""The stages: async functions from one record to the events that follow from it; nothing here knows Faust."""
