"""The sandbox's Analytics Hub, MCP server and login."""
