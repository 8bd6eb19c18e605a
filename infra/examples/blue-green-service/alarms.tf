# The guardian binds an alarm to the target group that its dimensions name: no rule has to list it. Blue's tells it what
# is not green's fault.

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = aws_lb_target_group.this

  alarm_name          = "${var.service}-${each.key}-5xx"
  alarm_description   = "Users of ${var.service} get errors from ${each.key}"
  namespace           = "AWS/ApplicationELB"
  metric_name         = "HTTPCode_Target_5XX_Count"
  dimensions          = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = each.value.arn_suffix }
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 10
  # Without errors there is no data.
  treat_missing_data = "notBreaching"
}
