// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policies, put them into effect, show those that are",
	}
	cmd.AddCommand(
		a.validateCommand(),
		a.applyCommand(),
		a.policyListCommand(),
		a.policyShowCommand(),
	)
	return cmd
}
