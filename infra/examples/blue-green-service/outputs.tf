output "url" {
  description = "Where the users go."
  value       = "http://${aws_lb.this.dns_name}/"
}

output "listener_arn" {
  description = "The listener."
  value       = aws_lb_listener.http.arn
}

output "rule_arn" {
  description = "The listener rule whose weights a deployment moves."
  value       = aws_lb_listener_rule.this.arn
}

output "target_group_arns" {
  description = "The two target groups, by colour."
  value       = { for colour, group in aws_lb_target_group.this : colour => group.arn }
}

output "task_sets" {
  description = "The task sets that there are, by colour."
  value       = { for colour, set in aws_ecs_task_set.this : colour => { id = set.task_set_id, arn = set.arn } }
}

output "guardian" {
  description = "Queue, roles, topic and all else that the module tells."
  value       = module.guardian
}
